// Package nat decides which port of which SNAT address a flow leaves with, and
// finds the flow again when the answer comes back to that port.
//
// The problem it solves: a backend answers the SNAT address, and the NIC gives
// the answer to any worker, seldom to the one that has the flow. So the address
// and the port alone must say whose it is, without asking anybody and without a
// lock; and since a flow counts as different as soon as its backend is another
// one, a port must serve many flows at once, or 64 thousand are all that one
// address can have.
//
// # Blocks of ports
//
// Ports are given to workers in blocks of 64. A Space, shared by all workers,
// has a word for each block of each address that says who owns it: a worker
// claims a block by compare-and-swap when it runs short, which is rare, and any
// worker finds the owner of an answer with one atomic load. Others divide once
// for all: DPVS by the lower bits of the port and a NIC that can filter by them
// (src/sa_pool.c), VPP by an equal share of all ports for each thread and a
// handoff (nat44-ed), its det44 plugin a fixed share for each client (RFC 7422).
// That strands the ports of the workers that have little to do, and every flow
// when the number of workers changes. Blocks go where the flows are.
//
// 64 ports are few enough that workers can share an address with a small range,
// and enough that a table of owners is 4 KiB an address and claiming is rare.
//
// # Which port
//
// Ports says which ports of its own blocks to try, one after the other. The
// caller takes the first one whose answer tuple (backend:bport → snat:sport) it
// does not have yet: Linux looks for a port the same way, in at most 128 steps
// (nf_nat_l4proto_unique_tuple in net/netfilter/nf_nat_core.c). Where to begin
// follows from a hash keyed with a secret, as in RFC 6056 §3.3.3, so that a port
// is hard to guess (RFC 6888 §5, REQ-15) and a client that comes again from the
// same port is the same to the backend, too. What blocks cost is that a worker
// with few flows chooses among few ports: among 64 with its first block, which
// one that is being hard to guess as well.
//
// # The way back
//
// An Index finds the entry of the flow table by a hash of the answer tuple,
// which is not stored a second time. Stations keeps the neighbour on the link
// that a client's packets come from, so that the answer can go back that way.
//
// # Ownership
//
// A Space belongs to everybody. Ports, Index and Stations belong to the one
// worker that has them, as its flow table does, and nothing in them is safe for
// two goroutines. Memory is allocated when they are made, and afterwards only
// where a method says so.
package nat
