// Package perf measures weir, and what weir could have been built on, with
// programs that anybody can run again.
//
// The problem it solves: a claim about speed is worth what its measurement is.
// So everything that is compared runs on the same machine in the same run, in
// random order, each time in new network namespaces and a new process; a run
// writes down where it was made, all of its single results, the bad ones too,
// and what disturbed it; and tables are made from what it has written down.
//
// Each measurement is a package of its own, and this one has their commands:
// ladder is what weir itself does with a packet, wire what a packet costs from one
// end to the other, connections what a TCP connection costs, flood what a flood does
// to those who were there before, checks what thousands of health checks cost the
// whole of weir, snapshots how long it takes until a change is known to workers, and
// soak whether anything grows. Package measure is what they have in common, testbed
// the network that some of them are made in.
//
// The command all makes the main ones in one run, and page writes what has come out
// into pages.
package perf
