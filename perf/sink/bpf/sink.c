// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause

// count_xdp and count_skb count the frames of a measurement where they arrive,
// look at their content if they are asked to, and drop them.

#include <stddef.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "../../generator/bpf/stamp.h"

// Written before the program is loaded, and known to the verifier: it leaves out
// whatever these do not ask for.
const volatile __u32 port;
const volatile _Bool verify;
const volatile _Bool latency;

// Where frames are to go, as bytes of a frame: destination MAC address, and
// destination of the inner packet. What of it counts has its bits set in the mask.
const volatile __u64 mac, mac_mask;
const volatile __u32 to[4], to_mask[4];
const volatile _Bool to_ipv6;
const volatile _Bool elsewhere; // is looked for

#define MOST_HEADERS 200 // in bytes, from the Ethernet header to the stamp's end
#define MOST_CHUNKS 160 // of CHUNK bytes each, in a packet that can be verified
#define CHUNK 64
#define MF_OR_OFFSET 0x3fff // in frag_off: any sign of a fragment; DF does not count

// A kind of packet is (tunnel * FAMILIES + family) * PROTOCOLS + protocol.
enum tunnel {
	NO_TUNNEL,
	IN_IPV4,
	IN_IPV6,
	TUNNELS,
};

enum family {
	IPV4,
	IPV6,
	FAMILIES,
};

enum protocol {
	DATAGRAMS,
	OPENINGS, // TCP connection requests
	SEGMENTS, // all other TCP
	PROTOCOLS,
};

struct tally {
	__u64 packets;
	__u64 bytes;
};

// Frames dropped, by kind, but for bad ones. Written by the program only.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, TUNNELS * FAMILIES * PROTOCOLS);
	__type(key, __u32);
	__type(value, struct tally);
} arrived SEC(".maps");

// What else has come of frames. Read by Go through BTF.
enum outcome {
	OUTCOME_GOOD, // never counted: it is in arrived
	OUTCOME_OTHER, // not of the measurement: left alone
	OUTCOME_BAD_LENGTH,
	OUTCOME_BAD_IP_CHECKSUM,
	OUTCOME_BAD_CHECKSUM,
	OUTCOME_BAD_STAMP,
	OUTCOME_MERGED,
	OUTCOME_BAD_ADDRESS,
	OUTCOMES,
};

/* Keeps the enum in the BTF, from which bpf2go makes its Go constants. */
const enum outcome *outcome_btf __attribute__((unused));

// Written by the program only.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, OUTCOMES);
	__type(key, __u32);
	__type(value, __u64);
} outcomes SEC(".maps");

// Nanoseconds from stamp to arrival: 16 buckets for each power of two. Values
// below 16 have a bucket each, and the last bucket takes all above it.
#define EXPONENT_MAX 39
#define BUCKETS ((EXPONENT_MAX - 3) * 16 + 16)

struct stamps {
	__u64 greatest; // nanoseconds
	__u64 reordered; // with a lower number than one that was here before
	__u64 buckets[BUCKETS];
};

// Written by the program only.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stamps);
} stamps SEC(".maps");

// Written by the program only, on whichever CPU: the highest number of a stamp.
volatile __u32 highest;

enum hook {
	HOOK_XDP, // ctx is a struct xdp_md
	HOOK_SKB, // ctx is a struct __sk_buff whose data begins at the MAC header
};

struct frame {
	void *ctx;
	void *data;
	void *end;
	__u32 len; // of all of it
	__u32 merged; // packets in it
};

static __always_inline __u32 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

// sum_range adds len bytes at an offset to a one's complement sum (RFC 1071), and
// returns it folded, or -1 if they are not there.
static __always_inline int sum_range(void *data, void *end, __u32 offset, __u32 len, __u32 sum)
{
	void *at = data + offset;

	if (offset > MOST_HEADERS)
		return -1;
	for (int i = 0; i < MOST_CHUNKS && len >= CHUNK; i++) {
		if (at + CHUNK > end)
			return -1;
		sum = bpf_csum_diff(NULL, 0, at, CHUNK, sum);
		at += CHUNK;
		len -= CHUNK;
	}
	if (len >= CHUNK)
		return -1;
#pragma unroll
	for (int size = CHUNK / 2; size >= 4; size /= 2) {
		if (!(len & size))
			continue;
		if (at + size > end)
			return -1;
		sum = bpf_csum_diff(NULL, 0, at, size, sum);
		at += size;
	}
	sum = fold(sum);
	if (len & 2) {
		if (at + 2 > end)
			return -1;
		sum += *(__u16 *)at;
		at += 2;
	}
	if (len & 1) {
		if (at + 1 > end)
			return -1;
		sum += *(__u8 *)at; // the first of two bytes, on a little-endian machine
	}
	return fold(sum);
}

// These are not static, so the verifier looks at them once and not once for each
// way that leads to them.
__noinline int sum_xdp(struct xdp_md *ctx, __u32 offset, __u32 len, __u32 sum)
{
	return sum_range((void *)(long)ctx->data, (void *)(long)ctx->data_end, offset, len, sum);
}

__noinline int sum_skb(struct __sk_buff *ctx, __u32 offset, __u32 len, __u32 sum)
{
	return sum_range((void *)(long)ctx->data, (void *)(long)ctx->data_end, offset, len, sum);
}

// bucket_of is the bucket of so many nanoseconds.
static __always_inline __u32 bucket_of(__u64 value)
{
	__u32 exponent = 0;

	if (value < 16)
		return value;
	if (value >> (EXPONENT_MAX + 1))
		return BUCKETS - 1;
#pragma unroll
	for (int bits = 32; bits > 0; bits /= 2)
		if (value >> exponent >> bits)
			exponent += bits;
	return (exponent - 4) * 16 + (value >> (exponent - 4));
}

// note notes a stamp of an arrived frame.
static __always_inline void note(const struct stamp *stamp)
{
	__u32 key = 0;
	struct stamps *s = bpf_map_lookup_elem(&stamps, &key);
	__u64 now = bpf_ktime_get_ns(), sent = bpf_be64_to_cpu(stamp->sent);
	__u64 value = now > sent ? now - sent : 0;
	__u32 number = bpf_ntohl(stamp->number), bucket = bucket_of(value);

	if (!s || bucket >= BUCKETS)
		return;
	s->buckets[bucket]++;
	if (value > s->greatest)
		s->greatest = value;
	if ((__s32)(number - highest) < 0)
		s->reordered++;
	else
		highest = number;
}

// packet is what is known of one IP packet of a frame.
struct packet {
	enum family family;
	void *ip;
	void *payload;
	__u32 payload_len; // as the header says
	__u8 proto;
	enum outcome outcome;
};

// parse reads the IP header at p->ip. There may be as many bytes for the packet,
// or fewer if it is the outer one, as there may be padding behind that. It
// returns whether it is a header without options, of a packet that is whole.
static __always_inline _Bool parse(struct packet *p, void *end, __u32 room, _Bool outer)
{
	__u32 len, header;

	if (p->family == IPV4) {
		struct iphdr *ip = p->ip;

		if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl != 5 || ip->frag_off & bpf_htons(MF_OR_OFFSET))
			return 0;
		header = sizeof(*ip);
		len = bpf_ntohs(ip->tot_len);
		p->proto = ip->protocol;
		if (verify && fold(bpf_csum_diff(NULL, 0, (void *)ip, sizeof(*ip), 0)) != 0xffff)
			p->outcome = OUTCOME_BAD_IP_CHECKSUM;
	} else {
		struct ipv6hdr *ip = p->ip;

		if ((void *)(ip + 1) > end || ip->version != 6)
			return 0;
		header = sizeof(*ip);
		len = header + bpf_ntohs(ip->payload_len);
		p->proto = ip->nexthdr;
	}
	p->payload = p->ip + header;
	p->payload_len = len - header;
	if (verify && !p->outcome && (len < header || len > room || (!outer && len < room)))
		p->outcome = OUTCOME_BAD_LENGTH;
	return 1;
}

// check verifies UDP or TCP, all of which payload_len says is there. It looks
// again whether headers are whole, for the verifier does not know that any more.
static __always_inline enum outcome check(const struct frame *f, enum hook hook, const struct packet *p)
{
	__u32 sum = bpf_htons(p->proto) + bpf_htons(p->payload_len);
	__u32 offset = p->payload - f->data;
	int result;

	if (p->proto == IPPROTO_UDP) {
		struct udphdr *udp = p->payload;

		if (bpf_ntohs(udp->len) != p->payload_len)
			return OUTCOME_BAD_LENGTH;
		if (!udp->check)
			return OUTCOME_BAD_CHECKSUM;
	} else {
		struct tcphdr *tcp = p->payload;

		if ((void *)(tcp + 1) > f->end || tcp->doff < 5 || tcp->doff * 4 > p->payload_len)
			return OUTCOME_BAD_LENGTH;
	}
	if (p->family == IPV4) { // both addresses
		if (p->ip + sizeof(struct iphdr) > f->end)
			return OUTCOME_BAD_LENGTH;
		sum = bpf_csum_diff(NULL, 0, p->ip + offsetof(struct iphdr, saddr), 8, sum);
	} else {
		if (p->ip + sizeof(struct ipv6hdr) > f->end)
			return OUTCOME_BAD_LENGTH;
		sum = bpf_csum_diff(NULL, 0, p->ip + offsetof(struct ipv6hdr, saddr), 32, sum);
	}
	if (hook == HOOK_XDP)
		result = sum_xdp(f->ctx, offset, p->payload_len, sum);
	else
		result = sum_skb(f->ctx, offset, p->payload_len, sum);
	if (result < 0)
		return OUTCOME_BAD_LENGTH;
	return result == 0xffff ? OUTCOME_GOOD : OUTCOME_BAD_CHECKSUM;
}

// stray tells whether a frame goes elsewhere than it is to.
static __always_inline _Bool stray(const struct frame *f, const struct packet *p)
{
	__u64 *eth = f->data; // two bytes more than the address
	__u32 *at = p->ip + (to_ipv6 ? offsetof(struct ipv6hdr, daddr) : offsetof(struct iphdr, daddr));

	if ((void *)(eth + 1) > f->end || (*eth & mac_mask) != mac || (p->family == IPV6) != to_ipv6)
		return 1;
	if ((void *)(at + 1) > f->end || (at[0] & to_mask[0]) != to[0])
		return 1;
	if (!to_ipv6)
		return 0;
	return (void *)(at + 4) > f->end || (at[1] & to_mask[1]) != to[1] || (at[2] & to_mask[2]) != to[2] ||
	       (at[3] & to_mask[3]) != to[3];
}

static __always_inline void tell(__u32 outcome, __u32 packets)
{
	__u64 *n = bpf_map_lookup_elem(&outcomes, &outcome);

	if (n)
		*n += packets;
}

// arrive counts a frame, and returns whether it was of the measurement.
static __always_inline _Bool arrive(struct frame *f, enum hook hook)
{
	struct ethhdr *eth = f->data;
	struct packet p = {.ip = eth + 1};
	enum tunnel tunnel = NO_TUNNEL;
	enum protocol protocol = DATAGRAMS;
	__u32 header = sizeof(struct udphdr);

	if ((void *)(eth + 1) > f->end)
		return 0;
	if (eth->h_proto == bpf_htons(ETH_P_IPV6))
		p.family = IPV6;
	else if (eth->h_proto != bpf_htons(ETH_P_IP))
		return 0;
	if (!parse(&p, f->end, f->len - sizeof(*eth), 1))
		return 0;
	if (p.proto == IPPROTO_IPIP || p.proto == IPPROTO_IPV6) {
		tunnel = p.family == IPV4 ? IN_IPV4 : IN_IPV6;
		p.family = p.proto == IPPROTO_IPIP ? IPV4 : IPV6;
		p.ip = p.payload;
		if (!parse(&p, f->end, p.payload_len, 0))
			return 0;
	}

	// UDP and TCP have the destination port at the same place.
	struct udphdr *udp = p.payload;
	struct tcphdr *tcp = p.payload;

	if ((void *)(udp + 1) > f->end || bpf_ntohs(udp->dest) != port)
		return 0;
	if (p.proto == IPPROTO_TCP) {
		if ((void *)(tcp + 1) > f->end)
			return 0;
		protocol = tcp->syn && !tcp->ack ? OPENINGS : SEGMENTS;
		header = tcp->doff * 4;
	} else if (p.proto != IPPROTO_UDP) {
		return 0;
	}
	if (elsewhere && !p.outcome && stray(f, &p))
		p.outcome = OUTCOME_BAD_ADDRESS;
	if (verify) {
		if (f->merged > 1)
			p.outcome = OUTCOME_MERGED;
		if (!p.outcome)
			p.outcome = check(f, hook, &p);
	}
	if (latency && !p.outcome) {
		struct stamp *stamp = p.payload + header;

		if ((void *)(stamp + 1) > f->end || header + sizeof(*stamp) > p.payload_len ||
		    stamp->magic != bpf_htonl(STAMP_MAGIC))
			p.outcome = OUTCOME_BAD_STAMP;
		else
			note(stamp);
	}
	if (p.outcome) {
		tell(p.outcome, f->merged);
		return 1;
	}

	__u32 kind = (tunnel * FAMILIES + p.family) * PROTOCOLS + protocol;
	struct tally *tally = bpf_map_lookup_elem(&arrived, &kind);

	if (tally) {
		tally->packets += f->merged;
		tally->bytes += f->len + (f->merged - 1) * (p.payload + header - f->data);
	}
	return 1;
}

SEC("xdp")
int count_xdp(struct xdp_md *ctx)
{
	struct frame f = {
		.ctx = ctx,
		.data = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
		.len = ctx->data_end - ctx->data,
		.merged = 1,
	};

	if (arrive(&f, HOOK_XDP))
		return XDP_DROP;
	tell(OUTCOME_OTHER, 1);
	return XDP_PASS;
}

SEC("tc")
int count_skb(struct __sk_buff *ctx)
{
	struct frame f = {.ctx = ctx, .len = ctx->len, .merged = ctx->gso_segs > 1 ? ctx->gso_segs : 1};
	__u32 need = verify || f.len < MOST_HEADERS ? f.len : MOST_HEADERS;

	// A packet socket's frames may have all but a few bytes elsewhere.
	if (ctx->data_end - ctx->data < need)
		bpf_skb_pull_data(ctx, need);
	f.data = (void *)(long)ctx->data;
	f.end = (void *)(long)ctx->data_end;
	if (arrive(&f, HOOK_SKB))
		return TC_ACT_SHOT;
	tell(OUTCOME_OTHER, f.merged);
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "Dual BSD/GPL";
