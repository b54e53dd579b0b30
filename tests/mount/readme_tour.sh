#!/usr/bin/env bash
# readme_tour.sh - the tour in README.md works as it is printed: every line of its blocks that open with
# ```sh tour, in order, in one shell, each ending with status 0.

# shellcheck source=tests/lib/cluster.sh
. "$(dirname "$0")/../lib/cluster.sh"

cluster=$work/tour/cluster # where mount-cluster.sh without --dir puts it
mkdir "$work/tour"
need_fuse
if [ -e "$SOURCE/README.md" ]; then
	awk '/^```sh tour *$/ { on = 1; next } /^```/ { on = 0 } on' "$SOURCE/README.md" >"$work/tour.sh"
fi
[ -s "$work/tour.sh" ] || skip_all "no README.md with a tour"

the_tour_works_as_printed() {
	ln -s "$SOURCE/mount-cluster.sh" "$work/tour/mount-cluster.sh"
	COORDFS_PORT=$(free_port)
	export COORDFS_PORT
	cd "$work/tour"
	timeout $((120 * SLOW)) bash -e -x "$work/tour.sh"
}

run_cases the_tour_works_as_printed
