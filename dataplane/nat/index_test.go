package nat

import (
	"fmt"
	"maps"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// numbers returns all that Lookup finds for a hash, sorted.
func numbers(x *Index, hash uint64) (all []uint32) {
	for n, at := x.Lookup(hash, 0); at >= 0; n, at = x.Lookup(hash, at) {
		all = append(all, n)
	}
	slices.Sort(all)
	return all
}

func TestNewIndex(t *testing.T) {
	for _, row := range []struct{ entries, sets int }{
		{0, 1}, {1, 1}, {4, 1}, {5, 2}, {8, 2}, {9, 4}, {1000, 256}, {1024, 256}, {1025, 512}, {1 << 20, 1 << 18},
	} {
		x := NewIndex(row.entries)
		if len(x.sets) != row.sets {
			t.Errorf("%d entries: %d sets, want %d", row.entries, len(x.sets), row.sets)
		}
		if at := reflect.ValueOf(x.sets).Pointer(); at%64 != 0 {
			t.Errorf("%d entries: the sets begin at %#x, want a multiple of 64", row.entries, at)
		}
	}
}

func TestIndex(t *testing.T) {
	const (
		hash     = 0x12345679_00000003
		otherTag = 0xabcdef01_00000003 // same set
		noTag    = 0x00000000_00000003
		otherSet = 0x12345679_00000002
	)
	x := NewIndex(64)
	for _, n := range []uint32{7, 0, 0xffffffff} {
		for _, h := range []uint64{hash, noTag} {
			if !x.Insert(h, n) {
				t.Fatalf("insert %d under %#x failed", n, h)
			}
		}
	}
	all := []uint32{0, 7, 0xffffffff}
	for _, row := range []struct {
		hash uint64
		want []uint32
	}{{hash, all}, {noTag, all}, {otherTag, nil}, {otherSet, nil}, {hash &^ 0xffffffff, nil}} {
		if got := numbers(x, row.hash); !slices.Equal(got, row.want) {
			t.Errorf("numbers of %#x: %v, want %v", row.hash, got, row.want)
		}
	}
	// The set has 6; two more fit.
	for i, want := range []bool{true, true, false, false} {
		if got := x.Insert(otherTag, uint32(i)); got != want {
			t.Errorf("insert %d: %v, want %v", i, got, want)
		}
	}
	if !x.Insert(otherSet, 1) {
		t.Error("the neighbouring set is full, too")
	}
	for _, row := range []struct {
		hash   uint64
		number uint32
		want   bool
	}{{hash, 8, false}, {otherTag, 7, false}, {otherSet, 7, false}, {hash, 7, true}, {hash, 7, false}, {hash, 0, true}} {
		if got := x.Remove(row.hash, row.number); got != row.want {
			t.Errorf("remove %d under %#x: %v, want %v", row.number, row.hash, got, row.want)
		}
	}
	if got := numbers(x, hash); !slices.Equal(got, []uint32{0xffffffff}) {
		t.Errorf("%v are left, want one", got)
	}
	if x.Len() != 7 {
		t.Errorf("len %d, want 7", x.Len())
	}
	x.Ahead([]uint64{hash, otherSet, 1<<64 - 1})
	x.Ahead(nil)
}

// Half full with hashes as they come, about one insert in 50 fails on the way;
// see the comment of NewIndex on the end of it.
func TestIndexHalfFull(t *testing.T) {
	const entries = 1 << 16
	x, rng := NewIndex(entries), random(9)
	tries := 0
	for x.Len() < entries {
		x.Insert(rng.Uint64(), 1)
		tries++
	}
	full := 0
	for i := range x.sets {
		if !slices.Contains(x.sets[i][:], 0) {
			full++
		}
	}
	if share := float64(full) / float64(len(x.sets)); share > 0.06 {
		t.Errorf("%.1f %% of the sets are full", 100*share)
	}
	if tries > entries*103/100 {
		t.Errorf("%d inserts for %d entries", tries, entries)
	}
}

// runIndex runs an Index and a map side by side, three bytes a step.
func runIndex(t *testing.T, data []byte) {
	type key struct {
		hash   uint64
		number uint32
	}
	x := NewIndex(16) // 4 sets
	entries := map[key]int{}
	for ; len(data) >= 3; data = data[3:] {
		// Few tags, so that there are equal ones; a tag's lowest bit is not kept.
		k := key{uint64(data[1]&7)<<33 | uint64(data[1]>>4), uint32(data[2] % 4)}
		inSet := 0
		for e, n := range entries {
			if e.hash%4 == k.hash%4 {
				inSet += n
			}
		}
		switch data[0] % 3 {
		case 0, 1:
			if ok := x.Insert(k.hash, k.number); ok != (inSet < ways) {
				t.Fatalf("insert %v with %d in the set: %v", k, inSet, ok)
			} else if ok {
				entries[key{sameHash(k.hash), k.number}]++
			}
		default:
			k := key{sameHash(k.hash), k.number}
			if ok := x.Remove(k.hash, k.number); ok != (entries[k] > 0) {
				t.Fatalf("remove %v of %d: %v", k, entries[k], ok)
			} else if ok {
				if entries[k]--; entries[k] == 0 {
					delete(entries, k)
				}
			}
		}
		want := map[uint32]int{}
		total := 0
		for e, n := range entries {
			total += n
			if e.hash == sameHash(k.hash) {
				want[e.number] += n
			}
		}
		got := map[uint32]int{}
		for _, n := range numbers(x, k.hash) {
			got[n]++
		}
		if !maps.Equal(got, want) || x.Len() != total {
			t.Fatalf("numbers of %#x: %v of %d, want %v of %d", k.hash, got, x.Len(), want, total)
		}
	}
}

// sameHash is equal for hashes that a table of 4 sets cannot tell apart.
func sameHash(hash uint64) uint64 { return hash&^(1<<33-1) | 1<<32 | hash%4 }

func TestIndexAgainstModel(t *testing.T) {
	rng := random(10)
	data := make([]byte, 60000)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	runIndex(t, data)
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte{0, 0x11, 1, 0, 0x11, 1, 2, 0x11, 1, 2, 0x11, 1, 2, 0x11, 1}) // the same twice
	full := []byte{}
	for i := range byte(9) {
		full = append(full, 0, i, i)
	}
	f.Add(append(full, 2, 3, 3, 0, 8, 0)) // a full set, with room again
	f.Fuzz(runIndex)
}

// The memory of a large Index is advised to be in huge pages: VmFlags of smaps, as
// Documentation/filesystems/proc.rst has them.
func TestIndexInHugePages(t *testing.T) {
	if _, err := os.Stat("/sys/kernel/mm/transparent_hugepage"); err != nil {
		t.Skip("the kernel has no transparent huge pages")
	}
	x := NewIndex(1 << 20)
	defer runtime.KeepAlive(x)
	at := uint64(reflect.ValueOf(x.sets[len(x.sets)/2:]).Pointer())
	all, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Skip("the kernel does not say what memory is in: ", err)
	}
	within := false
	for line := range strings.Lines(string(all)) {
		var from, to uint64
		if n, _ := fmt.Sscanf(line, "%x-%x ", &from, &to); n == 2 {
			within = from <= at && at < to
		} else if flags, is := strings.CutPrefix(line, "VmFlags:"); is && within {
			if !slices.Contains(strings.Fields(flags), "hg") {
				t.Errorf("mapping has flags %s", flags)
			}
			return
		}
	}
	t.Error("the index is in no mapping")
}
