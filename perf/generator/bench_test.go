package generator

import (
	"net/netip"
	"testing"

	"weir/lab/labtest"
)

// What the program takes to make a frame, without sending it.
func BenchmarkFrame(b *testing.B) {
	labtest.NeedRoot(b)
	to6 := netip.MustParseAddrPort("[2001:db8::1]:9")
	for _, test := range []struct {
		name   string
		change func(*Options)
	}{
		{"UDP", func(*Options) {}},
		{"UDP/stamp", func(o *Options) { o.Stamp = true }},
		{"UDP/zipf-1Ki", func(o *Options) { o.Zipf = 1 }},
		{"UDP/zipf-1Mi", func(o *Options) { o.Zipf, o.Flows = 1, 1<<20 }},
		{"UDP/1514", func(o *Options) { o.FrameLen = MaxFrameLen }},
		{"UDP6", func(o *Options) { o.To = to6 }},
		{"TCP", func(o *Options) { o.TCP = true }},
		{"TCP/SYN-0.1", func(o *Options) { o.TCP, o.SYNShare = true, 0.1 }},
		{"TCP6", func(o *Options) { o.TCP, o.To = true, to6 }},
		{"TCP6/all", func(o *Options) { o.TCP, o.SYNShare, o.Zipf, o.Stamp, o.To = true, 0.1, 1, true, to6 }},
		{"flood", func(o *Options) { o.SYN, o.Flows, o.Flood = true, 0, netip.MustParsePrefix("10.0.0.0/8") }},
	} {
		b.Run(test.name, func(b *testing.B) {
			opt := options
			test.change(&opt)
			g, err := New(opt)
			if err != nil {
				b.Fatal(err)
			}
			defer g.Close()
			if err := g.SetRate(Unlimited); err != nil {
				b.Fatal(err)
			}
			b.ResetTimer()
			_, _, err = g.objects.Programs[generatorProgGenerate].Benchmark(make([]byte, len(g.frame)), b.N, b.ResetTimer)
			if err != nil {
				b.Fatal(err)
			}
		})
	}
}
