package forward_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"weir/dataplane/forward"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/stats"
)

var update = flag.Bool("update", false, "write testdata anew from what comes out")

// goldenCase is one feature: frames go in on eth0, in order, and what comes
// out is in testdata: NAME.in.pcap, NAME.out.pcap and NAME.counters. The pcap
// that goes in is there to be looked at; it is generated from frames.
type goldenCase struct {
	name   string
	why    string
	frames [][]byte
	drop   stats.Reason // of every frame; ReasonNone if every frame is sent
}

func goldenCases() []goldenCase {
	var all []goldenCase
	for _, cases := range [][]goldenCase{
		dsrCases(), ipipCases(), arpCases(), ndpCases(), advertisementCases(), echoCases(), dropCases(), brokenCases(),
	} {
		all = append(all, cases...)
	}
	return all
}

func TestGolden(t *testing.T) {
	expected := map[string]bool{}
	for _, c := range goldenCases() {
		if expected[c.name+".counters"] {
			t.Fatalf("two cases are called %s", c.name)
		}
		for _, suffix := range []string{".in.pcap", ".out.pcap", ".counters"} {
			expected[c.name+suffix] = true
		}
		t.Run(c.name, func(t *testing.T) { golden(t, c) })
	}
	files, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !f.IsDir() && !expected[f.Name()] {
			t.Errorf("testdata/%s belongs to no case", f.Name())
		}
	}
}

func golden(t *testing.T, c goldenCase) {
	r := newRig(t, 64, worldSnapshot())
	var sent [][]byte
	var counters bytes.Buffer
	fmt.Fprintf(&counters, "# %s\n", c.why)
	for i, in := range c.frames {
		f, v := r.one(in, 0)
		want := forward.Drop
		if c.drop == stats.ReasonNone {
			want = forward.Send
		}
		if v.Action != want || v.Reason != c.drop {
			t.Errorf("frame %d: verdict %+v (%v), want %v", i, v, v.Reason, c.drop)
		}
		if v.Action != forward.Send {
			continue
		}
		out := bytes.Clone(f.Bytes())
		fmt.Fprintf(&counters, "egress eth%d %d bytes\n", v.Egress, len(out))
		sent = append(sent, out)
		if err := packettest.CheckWellFormed(in); err != nil {
			t.Errorf("frame %d: the test's own frame: %v", i, err)
		}
		if err := packettest.CheckWellFormed(out); err != nil {
			t.Errorf("frame %d: sent %x: %v", i, out, err)
		}
	}
	writeCounters(&counters, &r.counters)

	in, out := pcapOf(c.frames), pcapOf(sent)
	path := filepath.Join("testdata", c.name)
	compare(t, path+".in.pcap", in)
	compare(t, path+".out.pcap", out)
	compare(t, path+".counters", counters.Bytes())
}

// compare compares with a golden file, or writes it.
func compare(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(got, want) {
		return
	}
	if !strings.HasSuffix(path, ".pcap") {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
		return
	}
	g, w := framesOf(t, got), framesOf(t, want)
	for i := range max(len(g), len(w)) {
		switch {
		case i >= len(g):
			t.Errorf("%s: frame %d is missing:\n%x", path, i, w[i])
		case i >= len(w):
			t.Errorf("%s: frame %d is too many:\n%x", path, i, g[i])
		case !bytes.Equal(g[i], w[i]):
			t.Errorf("%s: frame %d is\n%x, want\n%x", path, i, g[i], w[i])
		}
	}
}

func pcapOf(frames [][]byte) []byte {
	var b bytes.Buffer
	w := pcapgo.NewWriter(&b)
	if err := w.WriteFileHeader(1<<18, layers.LinkTypeEthernet); err != nil {
		panic(err)
	}
	for _, f := range frames {
		info := gopacket.CaptureInfo{Timestamp: time.Unix(0, 0), CaptureLength: len(f), Length: len(f)}
		if err := w.WritePacket(info, f); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

func framesOf(tb testing.TB, pcap []byte) [][]byte {
	tb.Helper()
	r, err := pcapgo.NewReader(bytes.NewReader(pcap))
	if err != nil {
		tb.Fatal(err)
	}
	var frames [][]byte
	for {
		f, _, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return frames
		}
		if err != nil {
			tb.Fatal(err)
		}
		frames = append(frames, f)
	}
}

// writeCounters writes what is not zero.
func writeCounters(w io.Writer, c *stats.Counters) {
	for reason, n := range c.Drops {
		if n != 0 {
			fmt.Fprintf(w, "drop %v %d\n", stats.Reason(reason), n)
		}
	}
	for _, v := range []struct {
		name string
		n    uint64
	}{
		{"received", c.Received.Packets}, {"transmitted", c.Transmitted.Packets}, {"handed_over", c.HandedOver.Packets},
		{"arp_replies", c.ARPReplies}, {"ndp_replies", c.NDPReplies}, {"echo_replies", c.EchoReplies},
		{"flows_evicted", c.FlowsEvicted}, {"flows_expired", c.FlowsExpired},
	} {
		if v.n != 0 {
			fmt.Fprintf(w, "%s %d\n", v.name, v.n)
		}
	}
	for slot, b := range c.Backends {
		if b.Packets != 0 || b.NewFlows != 0 || b.Flows != 0 {
			fmt.Fprintf(w, "backend %d packets %d bytes %d new_flows %d flows %d\n",
				slot, b.Packets, b.Bytes, b.NewFlows, b.Flows)
		}
	}
}

// Every reason that forward can give has a case. The others are the worker's.
func TestEveryReasonHasACase(t *testing.T) {
	seen := map[stats.Reason]bool{
		stats.NoEgress: true, stats.HandoverFull: true, stats.TransmitFull: true,
	}
	for _, c := range goldenCases() {
		seen[c.drop] = true
	}
	for r := range stats.NumReasons {
		if !seen[r] {
			t.Errorf("no golden case ends with %v", r)
		}
	}
}
