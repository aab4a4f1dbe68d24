// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause

// The least that XDP programs in place of a load balancer do: send back (tx),
// and choose a backend and send it the packet in a tunnel (ipip).

#include <stdbool.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define BACKENDS 64

struct backend {
	__be32 address;
	__u8 mac[ETH_ALEN];
	__u16 unused;
};

// Written before a program is attached. Address and port of the VIP, and the
// outer source, are as in a frame.
__be32 vip;
__be16 vip_port;
__be32 tunnel_source;
__u32 number; // of backends
struct backend backends[BACKENDS];

// Every frame goes back to where it came from.
SEC("xdp")
int tx(struct xdp_md *ctx)
{
	struct ethhdr *eth = (void *)(long)ctx->data;
	__u8 mac[ETH_ALEN];

	if ((void *)(eth + 1) > (void *)(long)ctx->data_end)
		return XDP_PASS;
	__builtin_memcpy(mac, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, mac, ETH_ALEN);
	return XDP_TX;
}

// UDP and TCP have the ports at the same place.
struct headers {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
} __attribute__((packed));

struct tunnelled {
	struct ethhdr eth;
	struct iphdr ip; // the outer one
} __attribute__((packed));

// The finalizer of MurmurHash3, which spreads what goes in over all bits.
static __always_inline __u32 mix(__u32 h)
{
	h ^= h >> 16;
	h *= 0x85ebca6b;
	h ^= h >> 13;
	h *= 0xc2b2ae35;
	return h ^ h >> 16;
}

// The checksum (RFC 1071) of a header whose own is still zero.
static __always_inline __u16 checksum(const void *header)
{
	const __u16 *half = header;
	__u32 s = 0;

	for (int i = 0; i < (int)sizeof(struct iphdr) / 2; i++)
		s += half[i];
	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	return ~s;
}

// Chooses by source address and port, and puts an IPv4 header (RFC 2003) in
// front of the packet.
static __always_inline bool encapsulate(struct xdp_md *ctx)
{
	struct headers *in = (void *)(long)ctx->data;
	struct backend *b;
	struct tunnelled *out;
	__u8 self[ETH_ALEN];
	__u32 hash, n;
	__u16 len;

	if ((void *)(in + 1) > (void *)(long)ctx->data_end ||
	    in->eth.h_proto != bpf_htons(ETH_P_IP) || in->ip.ihl != 5 || in->ip.daddr != vip ||
	    (in->ip.protocol != IPPROTO_UDP && in->ip.protocol != IPPROTO_TCP) || in->udp.dest != vip_port)
		return false;
	hash = mix(in->ip.saddr ^ mix(in->udp.source));
	n = (__u64)hash * number >> 32;
	if (n >= BACKENDS)
		return false;
	b = &backends[n];
	len = bpf_ntohs(in->ip.tot_len) + sizeof(struct iphdr);
	__builtin_memcpy(self, in->eth.h_dest, ETH_ALEN);
	if (bpf_xdp_adjust_head(ctx, -(int)sizeof(struct iphdr)))
		return false;

	out = (void *)(long)ctx->data;
	if ((void *)(out + 1) > (void *)(long)ctx->data_end)
		return false;
	__builtin_memcpy(out->eth.h_dest, b->mac, ETH_ALEN);
	__builtin_memcpy(out->eth.h_source, self, ETH_ALEN);
	out->eth.h_proto = bpf_htons(ETH_P_IP);
	out->ip = (struct iphdr){
		.version = 4,
		.ihl = sizeof(struct iphdr) / 4,
		.tot_len = bpf_htons(len),
		.ttl = 64,
		.protocol = IPPROTO_IPIP,
		.saddr = tunnel_source,
		.daddr = b->address,
	};
	out->ip.check = checksum(&out->ip);
	return true;
}

SEC("xdp")
int ipip(struct xdp_md *ctx)
{
	return encapsulate(ctx) ? XDP_TX : XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
