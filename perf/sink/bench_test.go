package sink

import (
	"fmt"
	"testing"

	"weir/lab/labtest"
)

// What a sink takes for a frame, the kernel's way to it not included.
func BenchmarkArrive(b *testing.B) {
	labtest.NeedRoot(b)
	host, _ := newHosts(b, 0)
	for _, opt := range []Options{{}, {Verify: true}, {Latency: true}} {
		for _, test := range []struct {
			kind    Kind
			payload int
		}{{Kind{}, 18}, {Kind{}, 1472}, {Kind{Tunnel: InIPv4}, 18}, {Kind{Family: IPv6, Protocol: Segment}, 18}} {
			payload := make([]byte, test.payload)
			copy(payload, stampOf(1, 1))
			frame := frameOf(test.kind, payload)
			b.Run(fmt.Sprintf("verify=%t/latency=%t/%v/%d", opt.Verify, opt.Latency, test.kind, len(frame)), func(b *testing.B) {
				opt.Hook = XDP
				s := openOn(b, host, opt)
				defer closeSink(b, s)
				p, _, _ := s.program(XDP)
				b.ResetTimer()
				if _, _, err := p.Benchmark(frame, b.N, b.ResetTimer); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
			})
		}
	}
}
