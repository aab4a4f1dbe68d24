package fragment_test

import (
	"testing"

	"weir/dataplane/fragment"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
)

// BenchmarkTrack is per datagram of two fragments.
func BenchmarkTrack(b *testing.B) {
	b.Run("in-order", func(b *testing.B) {
		table, first := fragment.New(fragment.Config{}), ports(1)
		b.ReportAllocs()
		for i := range b.N {
			k := key{ID: uint32(i)}
			table.Track(&k, span{0, 1480, true}, first, 0)
			if got := table.Track(&k, span{1480, 1480, false}, nil, 0); got.Action != fragment.Forward {
				b.Fatal(got)
			}
		}
	})
	b.Run("backwards", func(b *testing.B) {
		table, first, frame := fragment.New(fragment.Config{}), ports(1), make([]byte, 1514)
		b.ReportAllocs()
		for i := range b.N {
			k := key{ID: uint32(i)}
			table.Track(&k, span{1480, 1480, false}, nil, 0)
			table.Hold(&k, frame, fragment.Meta{})
			table.Track(&k, span{0, 1480, true}, first, 0)
			if _, _, ok := table.Next(&k); !ok {
				b.Fatal("nothing held")
			}
		}
	})
}

// BenchmarkFlood is per lone fragment.
func BenchmarkFlood(b *testing.B) {
	table, frame := fragment.New(fragment.Config{}), make([]byte, 60)
	b.ReportAllocs()
	for i := range b.N {
		k := key{ID: uint32(i)}
		if table.Track(&k, span{1480, 8, false}, nil, 0).Action == fragment.Hold {
			table.Hold(&k, frame, fragment.Meta{})
		}
		if i%64 == 0 {
			table.Expire(0)
		}
	}
}

// BenchmarkSplit is per packet of 4,028 bytes, in three.
func BenchmarkSplit(b *testing.B) {
	p := packettest.Frame(spec(packet.ProtoUDP, false, 4000))[packet.EthernetLen:]
	dst := make([]byte, 1500)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for range b.N {
		s := fragment.NewSplitter(p, 1500)
		for {
			if _, ok := s.Next(dst); !ok {
				break
			}
		}
	}
}
