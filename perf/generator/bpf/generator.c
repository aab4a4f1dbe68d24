// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause

// generate makes one frame, of a flow, of a flood or of a flow beside that, and
// sends it out of an interface. The kernel runs it over and over on the frames of a small pool
// (Documentation/bpf/bpf_prog_run.rst, live frames).

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define FRAME 60
#define FIRST_ADDRESS 0xc6120000 // 198.18.0.0 (RFC 2544, appendix C.2.2)
#define FIRST_PORT 1024
#define PORTS_LOG2 14

// How far behind its pace the generator may fall and still catch up. What is
// missed beyond that is not sent: a burst is not the rate that was asked for.
#define BEHIND_NS 100000

// Written before the first run, and not after. The checksums' parts are the
// sums over all that does not change from frame to frame.
__u8 template[FRAME];
__u32 ip_sum;
__u32 transport_sum;
__u32 ifindex;
__u32 flows; // zero for a flood, where each frame has a source of its own
__u32 beside; // flows beside a flood
__u32 first_source;
__u32 sources_mask; // the bits of a source that are free
__u64 seed;

// Written at any time: nanoseconds from one frame to the next, with 32 binary
// places. Zero is as fast as possible, all ones is never.
volatile __u64 interval;
volatile __u64 beside_interval;

// Written at any time: the TCP control bits of flows beside a flood.
volatile __u8 beside_flags;

// RFC 9293, section 3.1.
#define TCP_SYN 0x02
#define FLAGS_AT 13

// Keys of states.
#define MAIN 0
#define BESIDE 1

struct state {
	__u64 sent; // frames given to the interface
	__u64 next; // when the next one is due, in nanoseconds
	__u64 part; // of a nanosecond after that, in the lower 32 bits
};

// Written by the program only.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct state);
} states SEC(".maps");

static __always_inline _Bool is_due(struct state *state, __u64 gap)
{
	if (gap == 0)
		return 1;
	if (gap == ~0ULL)
		return 0;
	__u64 now = bpf_ktime_get_ns();
	if (now < state->next)
		return 0;
	if (now - state->next > BEHIND_NS)
		state->next = now;
	state->part = (__u32)state->part + (__u64)(__u32)gap;
	state->next += (gap >> 32) + (state->part >> 32);
	return 1;
}

static __always_inline __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return ~(sum + (sum >> 16));
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

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	__u8 *frame = (void *)(long)ctx->data;
	__u32 key = BESIDE;
	struct state *state = bpf_map_lookup_elem(&states, &key);
	__u8 flags = TCP_SYN;
	__u32 address, port;

	if (!state || frame + FRAME > (__u8 *)(long)ctx->data_end)
		return XDP_ABORTED;
	_Bool aside = beside && is_due(state, beside_interval);

	if (!aside) {
		key = MAIN;
		state = bpf_map_lookup_elem(&states, &key);
		if (!state)
			return XDP_ABORTED;
		if (!is_due(state, interval))
			return XDP_DROP;
	}
	__u64 random = mix(seed + ++state->sent);
	__u32 sequence = random;

	if (aside || flows) {
		__u32 flow = (state->sent - 1) % (aside ? beside : flows);

		address = FIRST_ADDRESS + (flow >> PORTS_LOG2);
		port = FIRST_PORT + (flow & ((1 << PORTS_LOG2) - 1));
		if (aside) {
			flags = beside_flags;
			sequence = flow + !(flags & TCP_SYN); // which takes one number
		}
	} else {
		address = first_source + ((random >> 32) & sources_mask);
		port = FIRST_PORT + (((random & 0xffffffff) * (65536 - FIRST_PORT)) >> 32);
	}
	__u32 sum = (address >> 16) + (address & 0xffff);
	struct iphdr *ip = (void *)(frame + ETH_HLEN);

	__builtin_memcpy(frame, template, FRAME);
	ip->saddr = bpf_htonl(address);
	ip->check = bpf_htons(fold(ip_sum + sum));
	sum += transport_sum + port;
	if (ip->protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = (void *)(ip + 1);

		tcp->source = bpf_htons(port);
		tcp->seq = bpf_htonl(sequence);
		((__u8 *)tcp)[FLAGS_AT] = flags;
		tcp->check = bpf_htons(fold(sum + flags + (sequence >> 16) + (sequence & 0xffff)));
	} else {
		struct udphdr *udp = (void *)(ip + 1);
		__u16 check = fold(sum);

		udp->source = bpf_htons(port);
		udp->check = check ? bpf_htons(check) : 0xffff;
	}
	return bpf_redirect(ifindex, 0);
}

char _license[] SEC("license") = "Dual BSD/GPL";
