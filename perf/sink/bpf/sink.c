// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause

// count counts the frames of a measurement where they arrive, and drops them.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// Written before the program is attached.
__u32 port;

// Keys of arrived.
#define DATAGRAMS 0
#define OPENINGS 1 // TCP connection requests
#define SEGMENTS 2 // all other TCP

// Frames dropped. Written by the program only.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, __u64);
} arrived SEC(".maps");

struct headers {
	struct ethhdr eth;
	struct iphdr ip;
	union {
		struct udphdr udp;
		struct tcphdr tcp;
	};
} __attribute__((packed));

SEC("tc")
int count(struct __sk_buff *ctx)
{
	struct headers *frame = (void *)(long)ctx->data;
	__u32 key = DATAGRAMS;

	// UDP and TCP have the destination port at the same place.
	if ((void *)(frame + 1) > (void *)(long)ctx->data_end ||
	    frame->eth.h_proto != bpf_htons(ETH_P_IP) || frame->ip.ihl != 5 ||
	    bpf_ntohs(frame->udp.dest) != port)
		return TC_ACT_UNSPEC;
	if (frame->ip.protocol == IPPROTO_TCP)
		key = frame->tcp.syn && !frame->tcp.ack ? OPENINGS : SEGMENTS;
	else if (frame->ip.protocol != IPPROTO_UDP)
		return TC_ACT_UNSPEC;
	__u64 *n = bpf_map_lookup_elem(&arrived, &key);
	if (!n)
		return TC_ACT_UNSPEC;
	*n += 1;
	return TC_ACT_SHOT;
}

char _license[] SEC("license") = "Dual BSD/GPL";
