package forward_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"weir/dataplane/flow"
	"weir/dataplane/forward"
	"weir/dataplane/nat"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

var update = flag.Bool("update", false, "write testdata anew from what comes out")

// goldenCase is one feature: frames go in, in order, and what comes out is in
// testdata: NAME.in.pcap, NAME.out.pcap and NAME.counters. The pcap that goes in
// is there to be looked at; it is generated from the steps.
type goldenCase struct {
	name    string
	why     string
	world   func(*nat.Space) *snapshot.Snapshot // nil for the fixed world
	entries int                                 // of the flow table; 0 for 64
	before  []step                              // come first, and are not looked at
	steps   []step
}

// step is a frame that comes in.
type step struct {
	ingress uint16
	at      flow.Tick // time; between two times, everything that is over is swept
	frame   []byte
	drop    stats.Reason // ReasonNone if it is not dropped
}

// in is a frame that comes in on eth0 and is not dropped.
func in(frame []byte) step { return step{frame: frame} }

// back is a frame that comes in on eth1, where the backends are.
func back(frame []byte) step { return step{ingress: 1, frame: frame} }

func (s step) dropped(why stats.Reason) step { s.drop = why; return s }

func (s step) after(at flow.Tick) step { s.at = at; return s }

// frames returns all that comes in.
func (c *goldenCase) frames() [][]byte {
	var frames [][]byte
	for _, s := range c.steps {
		frames = append(frames, s.frame)
	}
	return frames
}

func goldenCases() []goldenCase {
	var all []goldenCase
	for _, cases := range [][]goldenCase{
		dsrCases(), ipipCases(), arpCases(), ndpCases(), advertisementCases(), echoCases(), dropCases(), brokenCases(),
		natCases(), natRuleCases(), natOwnCases(), fragmentCases(), fragmentNATCases(), errorCases(), errorNATCases(),
		tooBigCases(), refusalCases(), guardCases(), floodCases(), silentCases(), memberCases(),
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

func (c *goldenCase) rig(tb testing.TB) *rig {
	world, entries := c.world, c.entries
	if world == nil {
		world = plainWorld
	}
	if entries == 0 {
		entries = 64
	}
	return newRigIn(tb, entries, world)
}

func plainWorld(*nat.Space) *snapshot.Snapshot { return worldSnapshot() }

func golden(t *testing.T, c goldenCase) {
	r := c.rig(t)
	var out [][]byte
	var counters bytes.Buffer
	fmt.Fprintf(&counters, "# %s\n", c.why)
	for _, s := range c.before {
		r.all(s.ingress, s.frame, s.at)
	}
	now := flow.Tick(0)
	for i, s := range c.steps {
		if s.at != now {
			now = s.at
			r.Sweep(now, r.table.Sets())
		}
		sent, v := r.all(s.ingress, s.frame, now)
		if v.Reason != s.drop || (v.Action == forward.Drop) != (s.drop != stats.ReasonNone) {
			t.Errorf("frame %d: verdict %+v (%v), want %v", i, v, v.Reason, s.drop)
		}
		if len(sent) > 0 || len(r.learned) > 0 {
			if err := packettest.CheckWellFormed(s.frame); err != nil {
				t.Errorf("frame %d: the test's own frame: %v", i, err)
			}
		}
		for _, f := range sent {
			fmt.Fprintf(&counters, "egress eth%d %d bytes\n", f.egress, len(f.frame))
			out = append(out, f.frame)
			if err := packettest.CheckWellFormed(f.frame); err != nil {
				t.Errorf("frame %d: sent %x: %v", i, f.frame, err)
			}
		}
		for _, l := range r.learned {
			fmt.Fprintf(&counters, "learned path mtu %d to %s\n", l.mtu, l.backend)
		}
		for _, c := range r.claimed {
			what := "claimed"
			if c.probe {
				what = "probed"
			}
			fmt.Fprintf(&counters, "told %s %s by %s\n", c.addr, what, c.by)
		}
		r.learned, r.claimed = nil, nil
	}
	writeCounters(&counters, r.report())
	checkGauges(t, r, now)

	path := filepath.Join("testdata", c.name)
	compare(t, path+".in.pcap", pcapOf(c.frames()))
	compare(t, path+".out.pcap", pcapOf(out))
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
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		writeCounter(w, snake(v.Type().Field(i).Name), v.Field(i))
	}
	for slot := range c.Backends {
		b, sent := &c.Backends[slot], c.Sent[slot]
		if sent.Packets == 0 && b.NewFlows == 0 && b.Flows == 0 && b.Answers.Packets == 0 {
			continue
		}
		fmt.Fprintf(w, "backend %d packets %d bytes %d new_flows %d flows %d\n",
			slot, sent.Packets, sent.Bytes, b.NewFlows, b.Flows)
		if b.Answers.Packets != 0 {
			fmt.Fprintf(w, "backend %d answers %d bytes %d\n", slot, b.Answers.Packets, b.Answers.Bytes)
		}
	}
}

// writeCounter writes a counter that is a number, or packets and bytes.
func writeCounter(w io.Writer, name string, v reflect.Value) {
	switch {
	case v.Kind() == reflect.Struct:
		writeCounter(w, name, v.Field(0))
	case v.CanUint() && v.Uint() != 0, v.CanInt() && v.Int() != 0:
		fmt.Fprintf(w, "%s %v\n", name, v.Interface())
	}
}

// snake turns a field's name, ARPReplies say, into arp_replies.
func snake(name string) string {
	return strings.ToLower(regexp.MustCompile(`([a-z])([A-Z])|([A-Z])([A-Z][a-z])`).ReplaceAllString(name, "${1}${3}_${2}${4}"))
}

// Every reason that forward can give ends a frame of some case. The others are
// the worker's.
func TestEveryReasonHasACase(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range []stats.Reason{stats.ReasonNone, stats.NoEgress, stats.HandoverFull, stats.TransmitFull} {
		seen[r.String()] = true
	}
	for _, c := range goldenCases() {
		counters, err := os.ReadFile(filepath.Join("testdata", c.name+".counters"))
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(counters), "\n") {
			if words := strings.Fields(line); len(words) == 3 && words[0] == "drop" {
				seen[words[1]] = true
			}
		}
	}
	for r := range stats.NumReasons {
		if !seen[r.String()] {
			t.Errorf("no golden case ends with %v", r)
		}
	}
}
