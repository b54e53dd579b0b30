# shellcheck shell=bash
# deps.sh - what coordfs needs from Debian 12, and how to get it.
#
# Sourced by mount-cluster.sh and tests/run.sh. A machine that has everything is left alone and
# costs one dpkg-query; anything else is one `apt-get update` and one `apt-get install`.
# shellcheck disable=SC2034 # the lists are read by those who source this

# To build coordd and to use a mounted cluster.
DEPS_BUILD=(
	meson ninja-build pkgconf libc6-dev
	fuse3 libfuse3-dev libuv1-dev libcurl4-openssl-dev libmicrohttpd-dev libcjson-dev
	libhiredis-dev libprotobuf-c-dev protobuf-c-compiler libxxhash-dev uthash-dev libcmocka-dev
	attr jq procps
)

# To run the tests besides: the second compiler, sanitizers, checkers, and the programs they drive.
DEPS_TEST=(
	clang libclang-rt-14-dev clang-format shellcheck man-db groff-base
	util-linux python3 perl iproute2 curl
)

# The compiler's package: gcc unless CC names something else, which is then the caller's business.
deps_compiler() {
	case ${CC:-gcc} in
	gcc | cc) echo gcc ;;
	clang) echo clang ;;
	esac
}

# deps_missing PACKAGE...: print those that are not installed, one a line.
deps_missing() {
	local installed package

	installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null || true)
	for package in "$@"; do
		if ! grep -qx "installed $package" <<<"$installed"; then
			echo "$package"
		fi
	done
}

# deps_root COMMAND...: run it as root; fails with a sentence where there is no way to.
deps_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
		sudo -n "$@"
	elif command -v sudo >/dev/null && [ -t 0 ]; then
		sudo "$@"
	else
		return 126
	fi
}

# deps_install PACKAGE...: install what is missing. Says why it could not and returns 1.
deps_install() {
	local -a missing
	local rc=0

	if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
		echo "not a Debian system, installing nothing; needed are: $*" >&2
		return 0
	fi
	mapfile -t missing < <(deps_missing "$@")
	if [ "${#missing[@]}" = 0 ]; then
		return 0
	fi
	echo "installing ${missing[*]}" >&2
	deps_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update >&2 || rc=$?
	if [ "$rc" = 126 ]; then
		echo "cannot install: neither root nor sudo. As root, run:" >&2
		echo "  apt-get update && apt-get install -y --no-install-recommends ${missing[*]}" >&2
		return 1
	fi
	# A failed update is tolerated: the packages may be known already; the install decides.
	if ! deps_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y \
		--no-install-recommends "${missing[@]}" >&2; then
		echo "cannot install ${missing[*]}: apt-get failed, see above" >&2
		return 1
	fi
}
