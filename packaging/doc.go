// Package packaging is what the .deb and the .rpm are made of, and the test of them.
//
// The problem it solves: a box that weir is installed on has to be as safe after it as
// before. Nothing starts by itself, an upgrade touches neither the configuration nor
// the weir that runs, and purging leaves nothing. The test does all of it in a
// Debian tree of its own, and runs the installed weir as its unit does, with that
// user and no more than those capabilities.
package packaging
