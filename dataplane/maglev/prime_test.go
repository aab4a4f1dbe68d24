package maglev

import (
	"encoding/binary"
	"math"
	"testing"
)

func TestIsPrime(t *testing.T) {
	const limit = 100_000
	composite := make([]bool, limit)
	composite[0], composite[1] = true, true
	for i := 2; i < limit; i++ {
		for j := 2 * i; j < limit; j += i {
			composite[j] = true
		}
	}
	for n := -3; n < limit; n++ {
		if want := n >= 0 && !composite[n]; IsPrime(n) != want {
			t.Fatalf("%d: %v, want %v", n, !want, want)
		}
	}
	if !IsPrime(math.MaxInt32) || IsPrime(46337*46337) {
		t.Error("wrong near 2^31")
	}
}

func FuzzBuild(f *testing.F) {
	f.Add(uint16(7), []byte{1, 0, 1, 0, 1, 0})
	f.Add(uint16(251), []byte{0, 0, 255, 255, 1, 0})
	f.Add(uint16(2), []byte{0xff, 0xff})
	f.Fuzz(func(t *testing.T, size uint16, weights []byte) {
		backends := equal(min(len(weights)/2, 300))
		weighted, sum, heaviest := 0, uint64(0), uint64(0)
		for i := range backends {
			backends[i].Weight = uint32(binary.LittleEndian.Uint16(weights[2*i:]))
			if backends[i].Weight > 0 {
				weighted++
			}
			sum += uint64(backends[i].Weight)
			heaviest = max(heaviest, uint64(backends[i].Weight))
		}
		table, err := Build(int(size), backends)
		if ok := IsPrime(int(size)) && weighted <= int(size); ok != (err == nil) {
			t.Fatalf("size %d, %d with a weight: %v", size, weighted, err)
		}
		if err != nil {
			return
		}
		if weighted == 0 {
			if table != nil {
				t.Fatal("a table without backends")
			}
			return
		}
		// All backends together took rounds turns, give or take one slot each.
		slots := count(t, table, backends)
		for i, n := range slots {
			share := float64(size) * float64(backends[i].Weight) / float64(sum)
			slack := 2 + float64(weighted)*float64(backends[i].Weight)/float64(sum)
			if math.Abs(float64(n)-share) > slack || backends[i].Weight == 0 && n > 0 {
				t.Fatalf("backend %d: %d slots, want %.1f give or take %.1f", i, n, share, slack)
			}
		}
	})
}
