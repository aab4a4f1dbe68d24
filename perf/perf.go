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
// wire is what a packet costs from one end to the other, flood what a flood does
// to those who were there before, checks what thousands of health checks cost the
// whole of weir. Package measure is what they have in common, testbed the network
// that the first two are made in.
package perf
