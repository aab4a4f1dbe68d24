package connections

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"weir/perf/measure"
	"weir/perf/peers"
)

// Rows are in the order of loads and subjects, failures of all rounds are in
// them, and a subject without process has no time of one.
func TestReport(t *testing.T) {
	r := Report{Missing: map[Subject]string{IPVS: "not there"}, Programs: map[string]string{"haproxy": "version 3"}}
	for _, c := range []Cell{
		{Subject: NftDNAT, Load: Closed, PerSecond: 10, Kernel: 30e-6, Account: Account{Opened: 2, FramesIn: 20, FramesOut: 18}},
		{Subject: HAProxy, Load: Paced, PerSecond: 5, Process: 20e-6, Kernel: 10e-6, Memory: 16e6, Late: 3},
		{Subject: HAProxy, Load: Closed, PerSecond: 1, Process: 20e-6, Kernel: 10e-6, Memory: 16e6, Account: Account{Opened: 7, Failed: map[string]uint64{"reset": 2, "refused": 1}}},
		{Subject: HAProxy, Load: Closed, PerSecond: 3, Process: 40e-6, Kernel: 20e-6, Memory: 18e6, Account: Account{Opened: 9, Failed: map[string]uint64{"reset": 3}}},
		{Subject: Direct, Load: Closed, PerSecond: 99},
	} {
		r.Add(c)
	}
	var order []string
	for _, row := range r.Summary {
		order = append(order, string(row.Load)+" "+string(row.Subject))
	}
	if want := []string{"closed direct", "closed haproxy", "closed nft-dnat", "paced haproxy"}; !slices.Equal(order, want) {
		t.Fatalf("rows %v, want %v", order, want)
	}
	row := r.Summary[1]
	if row.Rounds != 2 || row.Opened != 16 || row.Failed["reset"] != 5 || row.Failed["refused"] != 1 {
		t.Errorf("%+v", row)
	}
	if want := (measure.Spread{Median: 2, Min: 1, Max: 3}); row.PerSecond != want {
		t.Errorf("%+v per second, want %+v", row.PerSecond, want)
	}
	if got := row.CPU.Format(1e6, 0); got != "45 (30-60)" {
		t.Errorf("cpu %s", got)
	}
	var text, page bytes.Buffer
	if err := measure.WriteText(&text, r.Tables()); err != nil {
		t.Fatal(err)
	}
	if err := measure.WriteMarkdown(&page, r.Tables()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1 refused, 5 reset", "3 late", "Without ipvs: not there.", "haproxy: version 3."} {
		if !strings.Contains(text.String(), want) || !strings.Contains(page.String(), want) {
			t.Errorf("%q is not in\n%s\n%s", want, &text, &page)
		}
	}
	if want := "| closed | nft-dnat | 1 | 10 (10-10) | 0 | 30.0 (30.0-30.0) | - | 30.0 | "; !strings.Contains(page.String(), want) {
		t.Errorf("%q is not in\n%s", want, &page)
	}
}

// HAProxy has nothing to say against its configuration.
func TestHAProxyText(t *testing.T) {
	if _, err := os.Stat(haproxyProgram); err != nil {
		t.Skip(err)
	}
	r := rig{}
	for a := backend1; len(r.backends) < backends; a = a.Next() {
		r.backends = append(r.backends, peers.Backend{Addr: a})
	}
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(r.haproxyText()), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(haproxyProgram, "-c", "-f", file).CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("WARNING")) {
		t.Errorf("%v: %s", err, out)
	}
}
