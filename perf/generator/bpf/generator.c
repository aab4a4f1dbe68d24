// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause

// generate makes one frame, of a flow, of a new connection, of a flood or of a
// flow beside that, and sends it out of an interface. The kernel runs it over
// and over on the frames of a small pool (Documentation/bpf/bpf_prog_run.rst,
// live frames). Whoever gets a frame may write to it, so all of its head is
// written anew each time; behind the head there is payload only.

#include <stddef.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "stamp.h"

#define LEAST_FRAME 60
#define MOST_HEAD 96
#define FIRST_PORT 1024
#define PORTS_LOG2 14

// New connections have one port of all their addresses after the other, so that
// two in succession are not of the same address.
#define OPENING_ADDRESSES_LOG2 22

// How far behind its pace the generator may fall and still catch up. What is
// missed beyond that is not sent: a burst is not the rate that was asked for.
#define BEHIND_NS 100000

// Written before the program is loaded, and known to the verifier: it leaves out
// whatever these do not ask for, so nothing costs those who do not want it.
const volatile __u32 ifindex;
const volatile __u32 head_len; // from LEAST_FRAME to MOST_HEAD
const volatile _Bool ipv6;
const volatile _Bool tcp;
const volatile __u32 flows; // zero for a flood, where each frame has a source of its own
const volatile __u32 beside; // flows beside a flood
const volatile __u32 sources_mask; // the bits of a flood's source that are free
const volatile _Bool sequence_is_flow; // one less in a SYN; else it is pseudo-random
const volatile __u64 seed;
const volatile __u64 openings; // how many of 2^32 frames open a new connection
const volatile __u32 zipf; // how many slots are used, zero for flows in turn
const volatile __u32 flow_stamp_at; // offset of the stamp, zero for none
const volatile __u32 opening_stamp_at;

// All that frames of one kind have in common, with zeros for the rest. The sums
// are the checksums' parts for what does not change from frame to frame.
struct head {
	__u8 bytes[MOST_HEAD];
	__u32 ip_sum;
	__u32 transport_sum;
	__u32 source; // number 0: an IPv4 address, or the last four bytes of an IPv6 one
};

// Written before the first run, and not after.
struct head flow_head;
struct head beside_head; // as flow_head, but for the source
struct head opening_head;

// Flows by popularity: a table for the alias method (Walker 1977, Vose 1991)
// over bins, which are ranges of flows with nearly the same probability.
#define SLOTS_LOG2 16
#define SLOTS (1 << SLOTS_LOG2)

struct slot {
	__u32 own; // how many of 2^32 draws of this slot are its own bin
	__u32 other; // the bin of the rest
};

// Written before the first run, and not after.
struct slot slots[SLOTS];
__u32 bins[SLOTS + 1]; // the first flow of each

// Written at any time: nanoseconds from one frame to the next, with 32 binary
// places. Zero is as fast as possible, all ones is never.
volatile __u64 interval;
volatile __u64 beside_interval;

// Written at any time: the TCP control bits of flows beside a flood, and of all else
// that is no new connection.
volatile __u8 beside_flags;
volatile __u8 flow_flags;

// RFC 9293, section 3.1.
#define TCP_SYN 0x02
#define FLAGS_AT 13

// Keys of states.
#define MAIN 0
#define BESIDE 1

struct state {
	__u64 sent; // frames given to the interface
	__u64 opened; // of these, new connections
	__u64 next; // when the next one is due, in nanoseconds
	__u64 part; // of a nanosecond after that, in the lower 32 bits
	__u64 turn; // the flow whose turn it is
};

// Written by the program only.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct state);
} states SEC(".maps");

// is_due leaves the time in now if it had to look at it.
static __always_inline _Bool is_due(struct state *state, __u64 gap, __u64 *now)
{
	if (gap == 0)
		return 1;
	if (gap == ~0ULL)
		return 0;
	*now = bpf_ktime_get_ns();
	if (*now < state->next)
		return 0;
	if (*now - state->next > BEHIND_NS)
		state->next = *now;
	state->part = (__u32)state->part + (__u64)(__u32)gap;
	state->next += (gap >> 32) + (state->part >> 32);
	return 1;
}

static __always_inline __u32 halves(__u32 n)
{
	return (n >> 16) + (n & 0xffff);
}

static __always_inline __u16 fold(__u32 sum)
{
	return ~halves(halves(sum));
}

// mix is a number that looks random and depends on n alone: SplitMix64 (Steele,
// Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
static __always_inline __u64 mix(__u64 n)
{
	n *= 0x9e3779b97f4a7c15;
	n = (n ^ (n >> 30)) * 0xbf58476d1ce4e5b9;
	n = (n ^ (n >> 27)) * 0x94d049bb133111eb;
	return n ^ (n >> 31);
}

// popular draws a flow.
static __always_inline __u32 popular(__u64 random)
{
	__u32 at = ((random >> 32) * zipf) >> 32;
	struct slot *slot = &slots[at & (SLOTS - 1)];
	__u32 bin = ((__u32)random < slot->own ? at : slot->other) & (SLOTS - 1);
	__u32 first = bins[bin];

	return first + (((mix(random) >> 32) * (bins[bin + 1] - first)) >> 32);
}

static __always_inline __u32 in_turn(struct state *state, __u32 many)
{
	__u32 flow = state->turn;

	state->turn = flow + 1 < many ? flow + 1 : 0;
	return flow;
}

// What is not the same in all frames.
struct fields {
	__u32 address; // added to the head's
	__u32 port;
	__u32 sequence;
	__u8 flags;
	__u64 number;
	__u64 now; // zero: not known yet
};

// copy copies the head, in words as long as they fit and with an overlap then.
static __always_inline void copy(__u8 *frame, const struct head *head)
{
	__builtin_memcpy(frame, head->bytes, LEAST_FRAME);
	if (head_len == LEAST_FRAME)
		return;
#pragma unroll
	for (int at = LEAST_FRAME; at + 8 <= MOST_HEAD; at += 8)
		if ((int)head_len > at + 8)
			__builtin_memcpy(frame + at, head->bytes + at, 8);
	__builtin_memcpy(frame + head_len - 8, head->bytes + head_len - 8, 8);
}

// write makes a frame of which head_len bytes are there.
static __always_inline void write(__u8 *frame, const struct head *head, __u32 stamp_at, const struct fields *f)
{
	__u32 address = head->source + f->address;
	__u32 sum = halves(address);
	__u8 *transport = frame + ETH_HLEN;

	copy(frame, head);
	if (ipv6) {
		struct ipv6hdr *ip = (void *)transport;

		ip->saddr.in6_u.u6_addr32[3] = bpf_htonl(address);
		transport += sizeof(*ip);
	} else {
		struct iphdr *ip = (void *)transport;

		ip->saddr = bpf_htonl(address);
		ip->check = bpf_htons(fold(head->ip_sum + sum));
		transport += sizeof(*ip);
	}
	sum += head->transport_sum + f->port;
	if (stamp_at) {
		struct stamp *stamp = (void *)(frame + stamp_at);
		__u64 now = f->now ? f->now : bpf_ktime_get_ns();

		stamp->number = bpf_htonl((__u32)f->number);
		stamp->sent = bpf_cpu_to_be64(now);
		sum += halves(f->number) + halves(now) + halves(now >> 32);
	}
	if (tcp) {
		struct tcphdr *header = (void *)transport;

		header->source = bpf_htons(f->port);
		header->seq = bpf_htonl(f->sequence);
		transport[FLAGS_AT] = f->flags;
		header->check = bpf_htons(fold(sum + f->flags + halves(f->sequence)));
	} else {
		struct udphdr *header = (void *)transport;
		__u16 check = fold(sum);

		header->source = bpf_htons(f->port);
		header->check = check ? bpf_htons(check) : 0xffff;
	}
}

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	__u8 *frame = (void *)(long)ctx->data;
	__u32 key = BESIDE;
	struct state *state;
	struct fields f = {.flags = tcp ? flow_flags : 0};
	__u64 random = 0;
	__u32 flow;

	if (frame + head_len > (__u8 *)(long)ctx->data_end)
		return XDP_ABORTED;
	if (beside) {
		state = bpf_map_lookup_elem(&states, &key);
		if (!state)
			return XDP_ABORTED;
		if (is_due(state, beside_interval, &f.now)) {
			state->sent++;
			flow = in_turn(state, beside);
			f.flags = beside_flags;
			f.address = flow >> PORTS_LOG2;
			f.port = FIRST_PORT + (flow & ((1 << PORTS_LOG2) - 1));
			f.sequence = flow + !(f.flags & TCP_SYN); // which takes one number
			write(frame, &beside_head, 0, &f);
			return bpf_redirect(ifindex, 0);
		}
	}
	key = MAIN;
	state = bpf_map_lookup_elem(&states, &key);
	if (!state)
		return XDP_ABORTED;
	if (!is_due(state, interval, &f.now))
		return XDP_DROP;
	f.number = ++state->sent;
	if (!flows || openings || zipf || !sequence_is_flow)
		random = mix(seed + f.number);
	f.sequence = random;
	if (openings && (__u32)mix(random + 1) < openings) {
		__u64 n = state->opened++;

		f.flags = TCP_SYN;
		f.address = n & ((1 << OPENING_ADDRESSES_LOG2) - 1);
		f.port = FIRST_PORT + ((n >> OPENING_ADDRESSES_LOG2) & ((1 << PORTS_LOG2) - 1));
		write(frame, &opening_head, opening_stamp_at, &f);
		return bpf_redirect(ifindex, 0);
	}
	if (flows) {
		flow = zipf ? popular(random) : in_turn(state, flows);
		f.address = flow >> PORTS_LOG2;
		f.port = FIRST_PORT + (flow & ((1 << PORTS_LOG2) - 1));
		if (sequence_is_flow)
			f.sequence = flow - !!(f.flags & TCP_SYN); // which takes one number
	} else {
		f.address = (random >> 32) & sources_mask;
		f.port = FIRST_PORT + (((random & 0xffffffff) * (65536 - FIRST_PORT)) >> 32);
	}
	write(frame, &flow_head, flow_stamp_at, &f);
	return bpf_redirect(ifindex, 0);
}

char _license[] SEC("license") = "Dual BSD/GPL";
