/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */

// Headers as they are in frames, and how the programs read them.

#ifndef WEIR_FRAME_H
#define WEIR_FRAME_H

#include <stdbool.h>

#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum hook {
	HOOK_XDP, // ctx is a struct xdp_md
	HOOK_SKB, // ctx is a struct __sk_buff whose data begins at the MAC header
};

// Protocol numbers (IANA).
enum {
	PROTO_ICMP = 1,
	PROTO_IPV4 = 4,
	PROTO_TCP = 6,
	PROTO_UDP = 17,
	PROTO_IPV6 = 41,
	PROTO_FRAGMENT = 44,
	PROTO_ICMPV6 = 58,
};

struct address {
	__be32 words[4]; // IPv4 as ::ffff:a.b.c.d (RFC 4291, section 2.5.5.2)
};

struct vlan {
	__be16 tci;
	__be16 proto;
};

// RFC 826, for Ethernet and IPv4.
struct arp {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_len;
	__u8 protocol_len;
	__be16 operation;
	__u8 sender_mac[6];
	__be32 sender;
	__u8 target_mac[6];
	__be32 target;
} __attribute__((packed));

// RFC 791, section 3.1.
struct ipv4 {
	__u8 version_ihl;
	__u8 tos;
	__be16 len;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 proto;
	__be16 checksum;
	__be32 source;
	__be32 destination;
};

// RFC 8200, section 3.
struct ipv6 {
	__be32 version;
	__be16 len;
	__u8 next;
	__u8 hop_limit;
	struct address source;
	struct address destination;
};

// RFC 8200, section 4.5.
struct ipv6_fragment {
	__u8 next;
	__u8 reserved;
	__be16 offset;
	__be32 id;
};

// RFC 4861, sections 4.3 and 4.4: a solicitation or an advertisement.
struct neighbor {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 flags;
	struct address target;
};

// RFC 792 and RFC 4443: an error. The packet that it is about follows.
struct icmp {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 rest;
};

// What TCP and UDP begin with.
struct ports {
	__be16 source;
	__be16 destination;
};

// load copies len bytes at off, less than 256, out of the frame, or returns false
// if the frame ends before. hook and len are constants wherever it is inlined.
static __always_inline bool load(void *ctx, enum hook hook, __u32 off, void *to, __u32 len)
{
	if (hook == HOOK_SKB)
		return bpf_skb_load_bytes(ctx, off, to, len) == 0;

	// Verifiers before Linux 5.16 forget the bounds of what was on the stack.
	if (!__builtin_constant_p(off))
		asm volatile("%0 &= 0xff" : "+r"(off));
	struct xdp_md *xdp = ctx;
	void *from = (void *)(long)xdp->data + off;
	if (from + len > (void *)(long)xdp->data_end)
		return false;
	__builtin_memcpy(to, from, len);
	return true;
}

static __always_inline void set_ipv4(struct address *address, __be32 ipv4)
{
	address->words[0] = 0;
	address->words[1] = 0;
	address->words[2] = bpf_htonl(0xffff);
	address->words[3] = ipv4;
}

// is_mapped tells whether an address stands for an IPv4 one. In an IPv6 packet
// it is not that address (RFC 4942 section 2.2).
static __always_inline bool is_mapped(const struct address *address)
{
	return address->words[0] == 0 && address->words[1] == 0 && address->words[2] == bpf_htonl(0xffff);
}

static __always_inline bool is_same(const struct address *a, const struct address *b)
{
	return a->words[0] == b->words[0] && a->words[1] == b->words[1] &&
	       a->words[2] == b->words[2] && a->words[3] == b->words[3];
}

#endif
