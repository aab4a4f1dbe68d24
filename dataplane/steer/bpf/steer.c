// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause

// The three programs that pick weir's frames out of what a NIC receives: for
// AF_XDP (weir_xdp), for AF_PACKET (weir_socket), and for hiding from the
// kernel what AF_PACKET has already seen (weir_tc). All ask the same question,
// is_weirs, of the same maps.

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/pkt_cls.h>

#include "frame.h"
#include "novip.h"

#define QUEUES 1024

// One in so many frames that there seems to be no room for is tried.
#define TRY 64

// Twice what Steer accepts: it adds all new addresses before it removes one.
#define VIPS (2 * 65536)

// How long weir_tc goes on hiding frames after weir last said it is alive.
#define HEARTBEAT_NS 3000000000LL

// Written by Steer. The value is reserved for flags and zero so far.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, VIPS);
	__type(key, struct address);
	__type(value, __u32);
} vips SEC(".maps");

// Written by SetMAC: the interface's own address as it is on the wire, in the
// first six bytes. Zero switches the check of the destination off.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} mac SEC(".maps");

// Written by Beat: CLOCK_MONOTONIC in nanoseconds.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} heartbeat SEC(".maps");

// Written by SetSocket: the AF_XDP socket of each queue.
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, QUEUES);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

// room is how many frames the AF_XDP socket of a queue can still take. What the
// program writes and what weir writes are in cache lines of their own.
struct room {
	__u32 given;   // to the socket; may be more than got there
	__u32 excess;  // came when there was no room
	__u64 refused; // for want of room
	__u64 pad_to_line[6];

	__u32 taken; // of those given, by weir; may be ahead of given
	__u32 size;  // how many more may be given than taken; 0 for any number
	__u64 pad_to_end[7];
};

// Mapped by OpenRoom, by queue.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, QUEUES);
	__type(key, __u32);
	__type(value, struct room);
} rooms SEC(".maps");

static __always_inline bool is_vip(const struct address *address)
{
	return bpf_map_lookup_elem(&vips, address) != NULL;
}

static __always_inline bool is_vip4(__be32 ipv4)
{
	struct address address;

	set_ipv4(&address, ipv4);
	return is_vip(&address);
}

static __always_inline bool is_vip6(const struct address *address)
{
	return !is_mapped(address) && is_vip(address);
}

// is_weirs tells whether a frame is for weir: an IP packet to a VIP or one of
// those in novip.h, an ARP request or neighbour solicitation that asks for a VIP,
// or an ARP message or neighbour advertisement that claims one for another
// station. Those about other addresses, shared ones among them, are the kernel's,
// which learns its neighbours from them. tagged says that the kernel has already
// moved an 802.1Q tag from the frame into its metadata. A frame with more than
// one tag, and one too short to tell, is the kernel's.
static __always_inline bool is_weirs(void *ctx, enum hook hook, bool tagged)
{
	struct ethhdr eth;
	__u32 off = sizeof(eth);

	if (!load(ctx, hook, 0, &eth, sizeof(eth)))
		return false;
	__be16 proto = eth.h_proto;
	if (proto == bpf_htons(ETH_P_8021Q)) {
		struct vlan vlan;

		if (tagged || !load(ctx, hook, off, &vlan, sizeof(vlan)))
			return false;
		proto = vlan.proto;
		off += sizeof(vlan);
	}

	__u32 zero = 0;
	__u64 *own = bpf_map_lookup_elem(&mac, &zero);
	if (!own)
		return false;
	__u64 to = 0;
	__builtin_memcpy(&to, eth.h_dest, sizeof(eth.h_dest));
	bool to_us = *own == 0 || to == *own;

	bool v6 = proto == bpf_htons(ETH_P_IPV6);
	if (v6) {
		struct ipv6 ip;
		struct neighbor nd;

		if (!load(ctx, hook, off, &ip, sizeof(ip)))
			return false;
		if (to_us && is_vip6(&ip.destination))
			return true;
		if (ip.next == PROTO_ICMPV6 && load(ctx, hook, off + sizeof(ip), &nd, sizeof(nd))) {
			// A question goes to the target's solicited-node group, a claim to all
			// nodes, ff02::1 (RFC 2464 section 7 has their addresses).
			bool to_group = eth.h_dest[0] == 0x33 && eth.h_dest[1] == 0x33 && eth.h_dest[2] == 0xff;
			bool to_all = to == bpf_cpu_to_be64(0x333300000001ULL << 16);
			bool asks = nd.type == 135 && (to_us || to_group);
			bool claims = nd.type == 136 && (to_us || to_all);
			if (asks || claims)
				return is_vip6(&nd.target);
		}
	}

	if (proto == bpf_htons(ETH_P_IP)) {
		__be32 destination;

		if (!to_us || !load(ctx, hook, off + 16, &destination, sizeof(destination)))
			return false;
		if (is_vip4(destination))
			return true;
	}

	if (v6 || proto == bpf_htons(ETH_P_IP))
		return to_us && is_weirs_without_vip(ctx, hook, v6, off);

	if (proto == bpf_htons(ETH_P_ARP)) {
		struct arp arp;

		if ((!to_us && to != 0xffffffffffffULL) || !load(ctx, hook, off, &arp, sizeof(arp)))
			return false;
		if (arp.hardware != bpf_htons(1) || arp.protocol != bpf_htons(ETH_P_IP) ||
		    arp.hardware_len != 6 || arp.protocol_len != 4)
			return false;
		bool request = arp.operation == bpf_htons(1);
		bool reply = arp.operation == bpf_htons(2);
		return (request && is_vip4(arp.target)) || ((request || reply) && is_vip4(arp.sender));
	}

	return false;
}

// is_weirs_skb is is_weirs for a frame whose tag may be in the metadata. One with
// a service tag (802.1ad) is the kernel's.
static __always_inline bool is_weirs_skb(struct __sk_buff *ctx)
{
	if (ctx->vlan_present && ctx->vlan_proto != bpf_htons(ETH_P_8021Q))
		return false;
	return is_weirs(ctx, HOOK_SKB, ctx->vlan_present);
}

// has_room tells whether the socket of a queue can take one more frame, and
// counts that frame. A driver hands over the frames of a queue one after another;
// should two CPUs do so at once, a frame may go uncounted. What was given and never
// got there, as it fits no buffer, seems to take room until weir finds the queue
// empty; and weir may sleep, with nothing to wake it. So now and then a frame is
// tried all the same: a socket that is full drops it, another one wakes weir.
static __always_inline bool has_room(__u32 queue)
{
	struct room *room = bpf_map_lookup_elem(&rooms, &queue);
	if (!room || room->size == 0)
		return true;
	__u32 given = room->given;
	if ((__s32)(given - *(volatile __u32 *)&room->taken) >= (__s32)room->size) {
		if (++room->excess % TRY == 0)
			return true;
		room->refused++;
		return false;
	}
	room->given = given + 1;
	return true;
}

// weir_xdp gives weir's frames to the AF_XDP socket of the queue they came in
// on, and drops those that it has no room for: the socket would drop them too,
// but only after it has taken from the worker what the two have in common. All
// else is the kernel's, and so is everything on a queue without a socket.
SEC("xdp")
int weir_xdp(struct xdp_md *ctx)
{
	__u32 queue = ctx->rx_queue_index;

	if (!is_weirs(ctx, HOOK_XDP, false))
		return XDP_PASS;
	if (!has_room(queue))
		return XDP_DROP;
	return bpf_redirect_map(&xsks, queue, XDP_PASS);
}

// weir_tc hides weir's frames from the kernel after the AF_PACKET tap, as long
// as weir is alive: a clsact filter outlives the process that put it there.
SEC("tc")
int weir_tc(struct __sk_buff *ctx)
{
	__u32 zero = 0;
	__u64 *beat = bpf_map_lookup_elem(&heartbeat, &zero);

	if (!beat || (__s64)(bpf_ktime_get_ns() - *beat) > HEARTBEAT_NS)
		return TC_ACT_UNSPEC;
	if (!is_weirs_skb(ctx))
		return TC_ACT_UNSPEC;
	return TC_ACT_SHOT;
}

// weir_socket keeps weir's frames, whole, on an AF_PACKET socket (SOCK_RAW).
// What the host itself sends is never one of them: a frame on its way to a
// backend with DSR is still addressed to the VIP.
SEC("socket")
int weir_socket(struct __sk_buff *ctx)
{
	if (ctx->pkt_type == PACKET_OUTGOING)
		return 0;
	return is_weirs_skb(ctx) ? -1 : 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
