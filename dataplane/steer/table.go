package steer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

// Keys and values of the maps in bpf/steer.c and bpf/novip.h. The fields are
// exported for the eBPF library, which copies the structs as they are.
type (
	address  [16]byte // IPv4 as ::ffff:a.b.c.d
	endpoint struct {
		Address address
		Proto   uint16
		Port    [2]byte // big-endian
	}
	ports struct{ Lo, Hi uint16 }
	flags uint32
)

// The flags of the map of uses.
const (
	useShared flags = 1 << iota
	useAnswers
	useTunnels
)

func newEndpoint(a Answers) endpoint {
	e := endpoint{Address: a.Addr.As16(), Proto: uint16(a.Proto)}
	binary.BigEndian.PutUint16(e.Port[:], a.Port)
	return e
}

func (a address) String() string { return netip.AddrFrom16(a).Unmap().String() }

func (e endpoint) String() string {
	return fmt.Sprintf("%s protocol %d port %d", e.Address, e.Proto, binary.BigEndian.Uint16(e.Port[:]))
}

// key is what a table has its entries by, and how errors call them.
type key interface {
	comparable
	fmt.Stringer
}

// table is a map that the programs read, and what is in it.
type table[K key, V comparable] struct {
	name   string
	kernel *ebpf.Map
	has    map[K]V
}

func newTable[K key, V comparable](objects *ebpf.Collection, name string) *table[K, V] {
	return &table[K, V]{name, objects.Maps[name], make(map[K]V)}
}

// add puts in what is wanted and not there yet.
func (t *table[K, V]) add(want map[K]V) error {
	for k, v := range want {
		if has, ok := t.has[k]; ok && has == v {
			continue
		}
		if err := t.kernel.Put(k, v); err != nil {
			return fmt.Errorf("add %s to %s: %w", k, t.name, err)
		}
		t.has[k] = v
	}
	return nil
}

// keep takes out what is not wanted.
func (t *table[K, V]) keep(want map[K]V) error {
	for k := range t.has {
		if _, ok := want[k]; ok {
			continue
		}
		if err := t.kernel.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove %s from %s: %w", k, t.name, err)
		}
		delete(t.has, k)
	}
	return nil
}
