package afpacket

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"weir/dataplane/queue"
)

// A slot begins with the frame's description, written by the kernel
// (include/uapi/linux/if_packet.h):
//
//	0    struct tpacket2_hdr   whose first word says who owns the slot
//	32   struct sockaddr_ll
//	52   free                  Buf of the queue.Frame begins here
//	130  Ethernet header       so that the IP header is at a multiple of 16
//	144  IP header
//
// which is what tpacket_rcv in net/packet/af_packet.c makes of reserve.
const (
	slotHeader = unix.SizeofTpacket2Hdr + unix.SizeofSockaddrLinklayer
	reserve    = 64
	frameStart = 130

	ethernetHeader = 14
	vlanTag        = 4
)

// The headroom of a received frame, with its tag put back. It does not compile
// if that is less than promised.
const _ = uint(frameStart - slotHeader - vlanTag - queue.Headroom)

// geometry is the size of a ring. Slots and blocks are powers of two in size,
// so the slots follow each other without gaps.
type geometry struct {
	size  int // of a slot, in bytes
	block int // of a block of contiguous kernel memory, in bytes
	slots int
}

const (
	blockSize   = 1 << 16
	minSlotSize = 1 << 9
	maxSlotSize = 1 << 16 // tp_mac and tp_net have 16 bits
	maxSlots    = 1 << 20
)

// newGeometry fills in what is zero. A slot made for an MTU holds its frames
// with two VLAN tags.
func newGeometry(mtu, size, slots int) (geometry, error) {
	if size == 0 {
		size = max(frameStart+ethernetHeader+2*vlanTag+mtu, minSlotSize)
	}
	if slots == 0 {
		slots = defaultSlots
	}
	if size < minSlotSize || size > maxSlotSize {
		return geometry{}, fmt.Errorf("slot size %d for MTU %d is not between %d and %d", size, mtu, minSlotSize, maxSlotSize)
	}
	if slots < 1 || slots > maxSlots {
		return geometry{}, fmt.Errorf("%d slots is not between 1 and %d", slots, maxSlots)
	}
	g := geometry{size: 1 << bits.Len(uint(size-1)), block: blockSize}
	perBlock := g.block / g.size
	g.slots = (slots + perBlock - 1) / perBlock * perBlock
	return g, nil
}

func (g geometry) bytes() int { return g.slots * g.size }

func (g geometry) request() *unix.TpacketReq {
	return &unix.TpacketReq{
		Block_size: uint32(g.block),
		Block_nr:   uint32(g.bytes() / g.block),
		Frame_size: uint32(g.size),
		Frame_nr:   uint32(g.slots),
	}
}

// ring is the slots of one socket. The kernel fills them in order and gives
// each to us by setting TP_STATUS_USER; we give it back by TP_STATUS_KERNEL, in
// any order. Only the worker uses it.
type ring struct {
	geometry
	mem  []byte // shared with the kernel
	next int    // the slot that the kernel fills next, or has filled
	lent []bool // slots that the worker holds: the kernel would not tell them from filled ones
}

func newRing(geo geometry, mem []byte) ring {
	return ring{geometry: geo, mem: mem, lent: make([]bool, geo.slots)}
}

// receive makes frame the next frame in the ring. ok is false if none has
// arrived; then, or if the frame is not usable, frame says nothing.
func (r *ring) receive(frame *queue.Frame) (ok, usable bool) {
	slot := r.next
	if r.lent[slot] {
		return false, false
	}
	h := r.header(slot)
	status := atomic.LoadUint32(&h.Status)
	if status&unix.TP_STATUS_USER == 0 {
		return false, false
	}
	if r.next++; r.next == r.slots {
		r.next = 0
	}
	r.lent[slot] = true

	// In place: a struct made first is copied in pieces that the CPU waits for.
	start := uint32(h.Mac) - slotHeader
	frame.Buf, frame.Start, frame.End, frame.ID = r.buffer(slot), start, start+h.Snaplen, uint64(slot)
	if !prepare(frame, h, status) {
		r.release(slot)
		return true, false
	}
	return true, true
}

// prepare turns what the kernel left in a slot into the frame as it was on the
// wire, and returns false if that is not possible.
func prepare(f *queue.Frame, h *unix.Tpacket2Hdr, status uint32) bool {
	if int(h.Mac) < slotHeader+vlanTag+queue.Headroom || int(h.Mac)+int(h.Snaplen) > slotHeader+len(f.Buf) {
		return false // not as laid out above
	}
	if h.Snaplen < h.Len || h.Snaplen < ethernetHeader {
		return false // a giant, cut off at the end of the slot; or a runt
	}
	if status&unix.TP_STATUS_CSUMNOTREADY != 0 && !finishChecksum(f.Bytes()) {
		return false
	}
	if status&unix.TP_STATUS_VLAN_VALID != 0 {
		tpid := uint16(unix.ETH_P_8021Q)
		if status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
			tpid = h.Vlan_tpid
		}
		putTagBack(f, tpid, h.Vlan_tci)
	}
	return true
}

// putTagBack inserts an 802.1Q tag behind the MAC addresses, which move into
// the headroom.
func putTagBack(f *queue.Frame, tpid, tci uint16) {
	start := f.Start - vlanTag
	copy(f.Buf[start:], f.Buf[f.Start:f.Start+12])
	binary.BigEndian.PutUint16(f.Buf[start+12:], tpid)
	binary.BigEndian.PutUint16(f.Buf[start+14:], tci)
	f.Start = start
}

// release gives a slot back to the kernel.
func (r *ring) release(slot int) {
	if !r.lent[slot] {
		panic("afpacket: frame given back twice")
	}
	r.lent[slot] = false
	atomic.StoreUint32(&r.header(slot).Status, unix.TP_STATUS_KERNEL)
}

// buffer returns the part of a slot that is lent to the worker.
func (r *ring) buffer(slot int) []byte {
	from, to := slot*r.size, (slot+1)*r.size
	return r.mem[from+slotHeader : to : to]
}

// pool is buffers for frames that were not received. Only the worker uses it.
type pool struct {
	mem  []byte
	size int   // of a buffer, in bytes
	free []int // a stack of indices
	lent []bool
}

const poolBuffers = 256

func newPool(size int) pool {
	p := pool{mem: make([]byte, poolBuffers*size), size: size, lent: make([]bool, poolBuffers)}
	for i := range poolBuffers {
		p.free = append(p.free, i)
	}
	return p
}

// take returns a buffer and its index. There has to be one.
func (p *pool) take() (int, []byte) {
	i := p.free[len(p.free)-1]
	p.free = p.free[:len(p.free)-1]
	p.lent[i] = true
	return i, p.mem[i*p.size : (i+1)*p.size : (i+1)*p.size]
}

func (p *pool) release(i int) {
	if !p.lent[i] {
		panic("afpacket: frame given back twice")
	}
	p.lent[i] = false
	p.free = append(p.free, i)
}
