#!/usr/bin/env bash
# run.sh - all tests, from a bare Debian 12 to one line that says how it went.
#
# Two builds, both with warnings as errors: gcc, optimised, as users get it; and clang with ASan, UBSan
# and the costly assertions. Unit tests, fuzz corpora, simulations and mount tests run on both,
# some at a smaller size under the sanitizers; the checks of the sources run once.

set -euo pipefail

cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
# shellcheck source=tests/lib/deps.sh
. tests/lib/deps.sh

usage() {
	cat <<'TEXT'
usage: tests/run.sh [unit|sim|fuzz|mount|lint|all] [NAME]

Installs what is missing, builds, runs the tests (all of them without an argument; NAME picks one of
its kind) and prints a line for each: ok, not ok or skip. Ends with "N passed, N failed" and status 0 if
none failed. What a test said is shown if it fails.

environment:
  COORDFS_BUILD     test this build directory as it is: install, configure and build nothing
  COORDFS_SLOW      the limits of the mount tests are multiplied by it (default 1, under sanitizers 3)
  COORDFS_KILLS, COORDFS_WAITERS   see tests/mount/leader_kill.sh, many_waiters.sh
TEXT
}

passed=0
failed=0
skipped=0
scratch=$(mktemp -d "${TMPDIR:-/var/tmp}/coordfs-run.XXXXXX")
builds=()

export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_stack_use_after_return=1:strict_string_checks=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1}

ok() {
	echo "ok $*"
	passed=$((passed + 1))
}

not_ok() {
	echo "not ok $*"
	failed=$((failed + 1))
}

skip() {
	echo "skip $*"
	skipped=$((skipped + 1))
}

indent() { sed 's/^/  /'; }

# check LABEL COMMAND...: a test that is one command.
check() {
	local label=$1
	shift

	if "$@" >"$scratch/out" 2>&1; then
		ok "$label"
	else
		tail -n 100 "$scratch/out" | indent
		not_ok "$label"
	fi
}

# --- builds -------------------------------------------------------------------------------------

configure() { # DIR COMPILER OPTION...
	local dir=$1 compiler=$2
	shift 2

	if [ -f "$dir/build.ninja" ]; then
		meson configure "$dir" "$@"
	else
		env CC="$compiler" meson setup "$dir" "$@"
	fi
}

build_gcc() {
	configure build-gcc "${CC:-gcc}" -Dwerror=true && ninja -C build-gcc
}

build_asan() {
	configure build-asan clang -Dwerror=true -Dparanoid=true -Db_lundef=false \
		-Db_sanitize=address,undefined && ninja -C build-asan
}

is_sanitized() { [[ $1 == *asan* ]]; }

# Only what was built can be tested; a build that fails is a failed test.
make_builds() {
	local kind

	for kind in gcc asan; do
		if "build_$kind" >"$scratch/out" 2>&1; then
			ok "build: $kind, without warnings"
			builds+=("build-$kind")
		else
			{ grep -E -A 8 'error:|FAILED:|ERROR:' "$scratch/out" || cat "$scratch/out"; } |
				tail -n 60 | indent
			not_ok "build: $kind, without warnings"
		fi
	done
}

# --- unit, sim, fuzz: what meson knows ----------------------------------------------------------

# report_meson BUILD LOG: the log has one JSON object for each test.
report_meson() {
	local test label result

	while IFS= read -r test; do
		label=$(jq -r '"\(.name | sub("^[^:]*:"; "") | sub(" / "; ": ")) (\(.duration * 10 | round / 10) s"' \
			<<<"$test")
		label+=", $1)"
		result=$(jq -r .result <<<"$test")
		case $result in
		OK) ok "$label" ;;
		SKIP) skip "$label" ;;
		*)
			jq -r '.stdout // "", .stderr // ""' <<<"$test" | tail -n 100 | indent
			not_ok "$label: $result"
			;;
		esac
	done < <(jq -c . "$2")
}

run_meson() { # SUITE NAME
	local build log
	local -a names

	for build in ${builds[@]+"${builds[@]}"}; do
		names=()
		if [ -n "$2" ]; then
			names=("$2")
		elif [ "$1" = sim ] && is_sanitized "$build"; then
			names=(sim_scenarios sim_replay sim_seeds) # the thousands of seeds run without sanitizers
		fi
		log=$build/meson-logs/$1.json
		rm -f "$log"
		meson test -C "$build" --no-rebuild --suite "$1" --logbase "$1" \
			${names[@]+"${names[@]}"} >"$scratch/out" 2>&1 || true # the log tells, test by test
		if [ -s "$log" ]; then
			report_meson "$build" "$log"
		else
			indent <"$scratch/out"
			not_ok "$1: meson test ran nothing ($build)"
		fi
	done
}

# --- mount --------------------------------------------------------------------------------------

# sweep DIR: what a test that was itself killed has left below DIR, processes (by pid) and mounts.
sweep() {
	local cmdline pid target

	for cmdline in /proc/[0-9]*/cmdline; do
		if grep -q -s -z -F "$1/" "$cmdline"; then
			pid=${cmdline#/proc/}
			kill -KILL "${pid%/cmdline}" 2>/dev/null || true # it may have ended just now
		fi
	done
	while read -r _ _ _ _ target _; do
		if [[ $target == "$1"/* ]]; then
			umount -l "$target" 2>/dev/null || fusermount3 -uz "$target" ||
				echo "$target stays mounted" >&2
		fi
	done </proc/self/mountinfo
}

# run_mount_test BUILD FILE: a mount test prints its own lines; one that says nothing bad must end well.
run_mount_test() {
	local line rc=0 before=$failed slow=1
	local -a sizes=()

	if is_sanitized "$1"; then
		slow=3
		sizes=(COORDFS_KILLS="${COORDFS_KILLS:-3}" COORDFS_WAITERS="${COORDFS_WAITERS:-2000}")
	fi
	slow=${COORDFS_SLOW:-$slow}
	mkdir "$scratch/mount"
	env COORDFS_BUILD="$1" COORDFS_SLOW="$slow" TMPDIR="$scratch/mount" ${sizes[@]+"${sizes[@]}"} \
		timeout -k 10 $((600 * slow)) "$2" </dev/null >"$scratch/out" 2>&1 || rc=$?
	while IFS= read -r line; do
		case $line in
		"ok "*) ok "mount: ${line#ok } ($1)" ;;
		"not ok "*) not_ok "mount: ${line#not ok } ($1)" ;;
		"skip "*) skip "mount: ${line#skip } ($1)" ;;
		*) echo "$line" ;;
		esac
	done <"$scratch/out"
	if [ "$rc" != 0 ] && [ "$failed" = "$before" ]; then
		not_ok "mount: $(basename "$2") ended with status $rc ($1)"
	fi
	sweep "$scratch/mount"
	rm -rf "$scratch/mount"
}

run_mount() { # NAME
	local build file

	for build in ${builds[@]+"${builds[@]}"}; do
		for file in tests/mount/${1:-*}.sh; do
			if [ -e "$file" ]; then
				run_mount_test "$build" "$file"
			else
				not_ok "mount: no such test, $file"
			fi
		done
	done
}

# --- lint ---------------------------------------------------------------------------------------

manual_is_clean() {
	local said

	said=$(LC_ALL=C.UTF-8 MANROFFSEQ='' man --warnings -E UTF-8 -l -Tutf8 -Z "$1" 2>&1 >/dev/null)
	echo "$said"
	[ -z "$said" ]
}

run_lint() { # NAME
	local file

	while IFS= read -r file; do
		case $file in
		*.sh | ./.ci/run) check "lint: shellcheck ${file#./}" shellcheck -x "$file" ;;
		*.[ch]) check "lint: clang-format ${file#./}" clang-format --dry-run --Werror "$file" ;;
		*.[158]) check "lint: man --warnings ${file#./}" manual_is_clean "$file" ;;
		esac
	done < <(find . -type d \( -name .git -o -name 'build*' -o -name cluster \) -prune -o -type f -print |
		{ grep -F -- "$1" || true; } | sort)
}

# --- all ----------------------------------------------------------------------------------------

cleanup() {
	sweep "$scratch"
	rm -rf "$scratch"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

run() { # KIND NAME
	case $1 in
	unit | sim | fuzz) run_meson "$1" "$2" ;;
	mount) run_mount "$2" ;;
	lint) run_lint "$2" ;;
	all)
		run_lint ""
		run_meson unit ""
		run_meson fuzz ""
		run_meson sim ""
		run_mount ""
		;;
	esac
}

main() {
	local kind=${1:-all} name=${2:-}

	case $kind in
	-h | --help)
		usage
		exit 0
		;;
	unit | sim | fuzz | mount | lint | all) ;;
	*)
		usage >&2
		exit 2
		;;
	esac
	if [ -n "${COORDFS_BUILD:-}" ]; then
		builds=("$COORDFS_BUILD")
	else
		# shellcheck disable=SC2046 # no word for a compiler that is no package
		deps_install $(deps_compiler) "${DEPS_BUILD[@]}" "${DEPS_TEST[@]}" || exit 1
		[ "$kind" = lint ] || make_builds
	fi
	run "$kind" "$name"
	if [ "$skipped" != 0 ]; then
		echo "$passed passed, $failed failed, $skipped skipped"
	else
		echo "$passed passed, $failed failed"
	fi
	[ "$failed" = 0 ]
}

main "$@"
