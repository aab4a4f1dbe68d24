package wire

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// texts returns what is to be read in a chart.
func texts(t *testing.T, r Report) (all []string) {
	t.Helper()
	var b bytes.Buffer
	if err := r.Plot(&b); err != nil {
		t.Fatal(err)
	}
	for decoder := xml.NewDecoder(&b); ; {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if text, ok := token.(xml.CharData); ok && strings.TrimSpace(string(text)) != "" {
			all = append(all, string(text))
		}
	}
}

// Each subject is in a chart if there is anything of it, with its medians.
func TestPlot(t *testing.T) {
	var r Report
	r.MaxLoss = MaxLoss
	for _, c := range []Cell{
		{Subject: "weir-dsr", Scenario: Core, Flows: 1 << 10, Round: 1, Delivered: 1, NsPerPkt: 210},
		{Subject: "weir-dsr", Scenario: Core, Flows: 1 << 10, Round: 2, Delivered: 1, NsPerPkt: 220},
		{Subject: "weir-dsr", Scenario: Core, Flows: 1 << 20, Round: 1, Delivered: 1, NsPerPkt: 333},
		{Subject: "nft-dnat", Scenario: Core, Flows: 1 << 10, Round: 1, Delivered: 1}, // no loss, so no time
		{Subject: "weir-dsr", Scenario: Flood, Flows: 1 << 10, Round: 1, Delivered: 1.23e6, NsPerPkt: 7},
		{Subject: "floor-afxdp", Scenario: LossFree, Flows: 1 << 10, Round: 1, Delivered: 2.34e6},
		{Subject: "weir-nat", Scenario: LossFree, Flows: 1 << 10, Round: 1, Delivered: 3.45e6, Loss: 1},
	} {
		r.Add(c)
	}
	got := texts(t, r)
	for _, want := range []string{"1 Ki flows", "1 Mi flows", "215", "333", "1.23", "2.34", "Delivered by the wire"} {
		if !slices.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	for _, absent := range []string{"nft-dnat", "weir-nat", "7", "3.45"} {
		if slices.Contains(got, absent) {
			t.Errorf("%q in %q", absent, got)
		}
	}
	if floor, dsr := slices.Index(got, "floor-afxdp"), lastIndex(got, "weir-dsr"); floor < 0 || floor > dsr {
		t.Errorf("not in the order of tables: %q", got)
	}

	r.Cells = slices.DeleteFunc(r.Cells, func(c Cell) bool { return c.Scenario != Core })
	only := Report{}
	for _, c := range r.Cells {
		only.Add(c)
	}
	if slices.Contains(texts(t, only), "Delivered by the wire") {
		t.Error("a chart of what was not measured")
	}
	if err := (Report{}).Plot(io.Discard); err == nil {
		t.Error("a chart of nothing")
	}
}

func lastIndex(all []string, s string) int {
	for i := len(all) - 1; i >= 0; i-- {
		if all[i] == s {
			return i
		}
	}
	return -1
}
