// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause

/*
 * Strips the outer IP header from packets that weir has tunnelled to this
 * host, and hands what is left to the kernel as if it had come that way:
 *
 *   before  | Ethernet | [802.1Q] | outer IP | inner IP | ... | [padding] |
 *   after              | Ethernet | [802.1Q] | inner IP | ... | [padding] |
 *
 * Everything that is not surely such a packet passes with no bit changed, so
 * that the kernel's own tunnels and all other traffic work as before.
 *
 * Padding is left where it is: ip_rcv_core and ip6_rcv_core trim every packet
 * to its own length anyway. What counts as the packet here is therefore what
 * the length fields say, never what the frame has room for.
 *
 * The outer header checksum is not looked at. It protects the outer addresses
 * only, and those grant nothing that the check of the inner destination does
 * not grant as well; the inner header has its own, which the kernel checks.
 */

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define VLAN_HLEN 4
#define IP_MF_OR_OFFSET 0x3fff /* in frag_off: any sign of a fragment; DF does not count */
#define ECN_MASK 3
#define ECN_NOT_ECT 0
#define ECN_ECT_1 1
#define ECN_ECT_0 2
#define ECN_CE 3

/* How a frame ended. Each frame is counted once. Read by Go through BTF. */
enum counter {
	STRIPPED_4IN4,
	STRIPPED_6IN6,
	STRIPPED_4IN6,
	STRIPPED_6IN4,
	PASSED_NOT_TUNNEL,
	PASSED_OUTER_MALFORMED,
	PASSED_OUTER_FRAGMENT,
	PASSED_OUTER_DESTINATION,
	PASSED_OUTER_SOURCE,
	PASSED_INNER_MALFORMED,
	PASSED_INNER_DESTINATION,
	DROPPED_ECN,
	DROPPED_NO_ROOM,
	COUNTERS,
};

/* Keeps the enum in the BTF, from which bpf2go makes its Go constants. */
const enum counter *counter_btf __attribute__((unused));

#define OK (-1) /* from a parser: no reason to stop here */

/* An address of either family. IPv4 fills the first four bytes, zeros follow. */
struct address {
	__u32 family; /* 4 or 6 */
	__u8 bytes[16];
};

/* A prefix over family and bytes: 32 + the prefix length in bits, or 0 for
 * every address of both families. */
struct prefix {
	__u32 length;
	struct address address;
};

/* Written by Go before the program is attached. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* set by Go */
	__type(key, struct address);
	__type(value, __u8);
} vips SEC(".maps");

/* Allowed outer sources. Written by Go before the program is attached. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1); /* set by Go */
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, __u8);
} sources SEC(".maps");

/* Allowed outer destinations: the host's own addresses. Kept up to date by Go. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, __u8);
} locals SEC(".maps");

/* Indexed by enum counter. Written here, read by Go. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32); /* must be an integer to BTF */
	__type(value, __u64);
} counters SEC(".maps");

/* The lengths are 64 bits wide because the verifier remembers the bounds of a
 * whole stack slot only. */
struct outer {
	struct prefix source;
	struct prefix destination;
	__u64 header;  /* length with options, bytes */
	__u64 payload; /* length by the length field, bytes */
	__u8 next;     /* IPPROTO_IPIP or IPPROTO_IPV6 */
	__u8 ecn;
};

static __always_inline int end(enum counter reason, int action)
{
	__u32 index = reason;
	__u64 *n = bpf_map_lookup_elem(&counters, &index);

	if (n)
		(*n)++;
	return action;
}

static __always_inline int is_tunnel(__u8 next)
{
	return next == IPPROTO_IPIP || next == IPPROTO_IPV6;
}

static __always_inline void set_address4(struct address *a, const __be32 *from)
{
	a->family = 4;
	__builtin_memcpy(a->bytes, from, 4);
}

static __always_inline void set_address6(struct address *a, const struct in6_addr *from)
{
	a->family = 6;
	__builtin_memcpy(a->bytes, from, 16);
}

/* RFC 791 section 3.1. */
static __always_inline int parse_outer4(void *l3, void *data_end, struct outer *o)
{
	struct iphdr *ip = l3;
	__u32 total;

	if ((void *)(ip + 1) > data_end)
		return PASSED_OUTER_MALFORMED;
	if (!is_tunnel(ip->protocol))
		return PASSED_NOT_TUNNEL;
	total = bpf_ntohs(ip->tot_len);
	o->header = ip->ihl * 4;
	if (ip->version != 4 || o->header < sizeof(*ip) || total < o->header ||
	    total > (__u64)(data_end - l3))
		return PASSED_OUTER_MALFORMED;
	if (ip->frag_off & bpf_htons(IP_MF_OR_OFFSET))
		return PASSED_OUTER_FRAGMENT;
	o->payload = total - o->header;
	o->next = ip->protocol;
	o->ecn = ip->tos & ECN_MASK;
	o->source.length = o->destination.length = 32 + 32;
	set_address4(&o->source.address, &ip->saddr);
	set_address4(&o->destination.address, &ip->daddr);
	return OK;
}

/* RFC 8200 section 3. With an extension header before it, a tunnelled packet
 * is left to the kernel: weir sends none, and a fragment has one. */
static __always_inline int parse_outer6(void *l3, void *data_end, struct outer *o)
{
	struct ipv6hdr *ip = l3;

	if ((void *)(ip + 1) > data_end)
		return PASSED_OUTER_MALFORMED;
	if (!is_tunnel(ip->nexthdr))
		return PASSED_NOT_TUNNEL;
	o->header = sizeof(*ip);
	o->payload = bpf_ntohs(ip->payload_len);
	if (ip->version != 6 || o->header + o->payload > (__u64)(data_end - l3))
		return PASSED_OUTER_MALFORMED;
	o->next = ip->nexthdr;
	o->ecn = ip->flow_lbl[0] >> 4 & ECN_MASK;
	o->source.length = o->destination.length = 32 + 128;
	set_address6(&o->source.address, &ip->saddr);
	set_address6(&o->destination.address, &ip->daddr);
	return OK;
}

static __always_inline int parse_inner4(void *l3, void *data_end, __u64 room,
					struct address *destination, __u8 *ecn)
{
	struct iphdr *ip = l3;
	__u32 total, header;

	if ((void *)(ip + 1) > data_end)
		return PASSED_INNER_MALFORMED;
	total = bpf_ntohs(ip->tot_len);
	header = ip->ihl * 4;
	if (ip->version != 4 || header < sizeof(*ip) || total < header || total > room)
		return PASSED_INNER_MALFORMED;
	*ecn = ip->tos & ECN_MASK;
	set_address4(destination, &ip->daddr);
	return OK;
}

static __always_inline int parse_inner6(void *l3, void *data_end, __u64 room,
					struct address *destination, __u8 *ecn)
{
	struct ipv6hdr *ip = l3;

	if ((void *)(ip + 1) > data_end)
		return PASSED_INNER_MALFORMED;
	if (ip->version != 6 || sizeof(*ip) + bpf_ntohs(ip->payload_len) > room)
		return PASSED_INNER_MALFORMED;
	*ecn = ip->flow_lbl[0] >> 4 & ECN_MASK;
	set_address6(destination, &ip->daddr);
	return OK;
}

/* RFC 6040 section 4.2, figure 4. The one combination that is dropped (not
 * ECN-capable inside, congestion met outside) is handled by the caller. */
static __always_inline __u8 merge_ecn(__u8 outer, __u8 inner)
{
	if (inner == ECN_NOT_ECT)
		return inner;
	if (outer == ECN_CE)
		return ECN_CE;
	if (outer == ECN_ECT_1 && inner == ECN_ECT_0)
		return ECN_ECT_1;
	return inner;
}

/* The header checksum is updated by RFC 1624, equation 3. */
static __always_inline void set_ecn4(struct iphdr *ip, __u8 ecn)
{
	__u8 *bytes = (__u8 *)ip;
	__u32 before = bytes[0] << 8 | bytes[1];
	__u32 after = (before & ~ECN_MASK) | ecn;
	__u32 sum = (__u16)~bpf_ntohs(ip->check) + (__u16)~before + after;

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	ip->tos = after;
	ip->check = bpf_htons((__u16)~sum);
}

static __always_inline void set_ecn6(struct ipv6hdr *ip, __u8 ecn)
{
	ip->flow_lbl[0] = (ip->flow_lbl[0] & ~(ECN_MASK << 4)) | ecn << 4;
}

/* Moves the Ethernet header, of length l2, up to the inner header. Nothing has
 * been changed before it, and it cannot fail half-way: the inner header has
 * been seen whole. */
static __always_inline int strip(struct xdp_md *ctx, __u32 l2, __u32 outer, __u8 next, __u8 ecn)
{
	__u8 link[ETH_HLEN + VLAN_HLEN];
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	__be16 type = next == IPPROTO_IPIP ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);

	if (data + sizeof(link) > data_end)
		return -1;
	__builtin_memcpy(link, data, sizeof(link));
	if (bpf_xdp_adjust_head(ctx, outer))
		return -1;
	data = (void *)(long)ctx->data;
	data_end = (void *)(long)ctx->data_end;

	if (l2 == ETH_HLEN) {
		if (data + ETH_HLEN > data_end)
			return -1;
		__builtin_memcpy(data, link, ETH_HLEN - sizeof(type));
		__builtin_memcpy(data + ETH_HLEN - sizeof(type), &type, sizeof(type));
		data += ETH_HLEN;
	} else {
		if (data + sizeof(link) > data_end)
			return -1;
		__builtin_memcpy(data, link, sizeof(link) - sizeof(type));
		__builtin_memcpy(data + sizeof(link) - sizeof(type), &type, sizeof(type));
		data += sizeof(link);
	}

	if (next == IPPROTO_IPIP) {
		struct iphdr *ip = data;

		if ((void *)(ip + 1) > data_end)
			return -1;
		if ((ip->tos & ECN_MASK) != ecn)
			set_ecn4(ip, ecn);
	} else {
		struct ipv6hdr *ip = data;

		if ((void *)(ip + 1) > data_end)
			return -1;
		set_ecn6(ip, ecn);
	}
	return 0;
}

SEC("xdp")
int weir_decap(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct outer o = {};
	struct address destination = {};
	__u32 l2 = ETH_HLEN;
	__be16 type;
	__u8 ecn = 0;
	int reason;
	enum counter kind;

	if ((void *)(eth + 1) > data_end)
		return end(PASSED_NOT_TUNNEL, XDP_PASS);
	type = eth->h_proto;
	if (type == bpf_htons(ETH_P_8021Q)) {
		l2 += VLAN_HLEN;
		if (data + l2 > data_end)
			return end(PASSED_NOT_TUNNEL, XDP_PASS);
		type = *(__be16 *)(data + l2 - sizeof(type));
	}

	if (type == bpf_htons(ETH_P_IP))
		reason = parse_outer4(data + l2, data_end, &o);
	else if (type == bpf_htons(ETH_P_IPV6))
		reason = parse_outer6(data + l2, data_end, &o);
	else
		reason = PASSED_NOT_TUNNEL;
	if (reason != OK)
		return end(reason, XDP_PASS);
	if (!bpf_map_lookup_elem(&locals, &o.destination))
		return end(PASSED_OUTER_DESTINATION, XDP_PASS);
	if (!bpf_map_lookup_elem(&sources, &o.source))
		return end(PASSED_OUTER_SOURCE, XDP_PASS);

	if (o.next == IPPROTO_IPIP)
		reason = parse_inner4(data + l2 + o.header, data_end, o.payload, &destination, &ecn);
	else
		reason = parse_inner6(data + l2 + o.header, data_end, o.payload, &destination, &ecn);
	if (reason != OK)
		return end(reason, XDP_PASS);
	if (!bpf_map_lookup_elem(&vips, &destination))
		return end(PASSED_INNER_DESTINATION, XDP_PASS);

	if (o.ecn == ECN_CE && ecn == ECN_NOT_ECT)
		return end(DROPPED_ECN, XDP_DROP);
	if (strip(ctx, l2, o.header, o.next, merge_ecn(o.ecn, ecn)))
		return end(DROPPED_NO_ROOM, XDP_DROP);

	if (o.source.address.family == 4)
		kind = o.next == IPPROTO_IPIP ? STRIPPED_4IN4 : STRIPPED_6IN4;
	else
		kind = o.next == IPPROTO_IPIP ? STRIPPED_4IN6 : STRIPPED_6IN6;
	return end(kind, XDP_PASS);
}
