package main

import (
	"os/exec"
	"strings"
	"testing"
)

// Every command that is listed has a page, which names each of its flags and of
// those of the commands below it.
func TestManPages(t *testing.T) {
	app := newApp()
	app.Setup()
	pages := manPages(app)
	listed := 0
	for _, c := range app.VisibleCommands() {
		if c.Name == "help" {
			continue
		}
		listed++
		page := pages["weir-"+c.Name+".8"]
		if !strings.Contains(page, "weir\\-"+c.Name+` \- `+escape(c.Usage)) {
			t.Errorf("the page of %s does not say what it is for: %s", c.Name, page)
		}
		if !strings.Contains(pages["weir.8"], "weir\\-"+c.Name+"(8)") {
			t.Errorf("weir(8) does not refer to %s", c.Name)
		}
		for _, each := range append(c.VisibleCommands(), c) {
			for _, f := range each.VisibleFlags() {
				if name := f.Names()[0]; name != "help" && !strings.Contains(page, escape(dashed(name))) {
					t.Errorf("the page of %s does not have %s of %s", c.Name, dashed(name), each.Name)
				}
			}
		}
	}
	if len(pages) != listed+1 {
		t.Errorf("%d pages for %d commands", len(pages), listed)
	}
}

// No text of ours is taken for a request, and what groff sees it understands.
func TestManPagesAreWellFormed(t *testing.T) {
	app := newApp()
	app.Setup()
	known := map[string]bool{"TH": true, "SH": true, "SS": true, "B": true, "I": true, "RI": true, "PP": true, "TP": true, "br": true}
	for name, page := range manPages(app) {
		for line := range strings.SplitSeq(page, "\n") {
			if strings.HasPrefix(line, "'") {
				t.Errorf("%s: %q begins as a request", name, line)
			}
			if request, is := strings.CutPrefix(line, "."); is && !known[strings.Fields(request + " ?")[0]] {
				t.Errorf("%s: unknown request %q", name, line)
			}
		}
		if path, err := exec.LookPath("groff"); err == nil {
			cmd := exec.Command(path, "-man", "-ww", "-z", "-Tutf8")
			cmd.Stdin = strings.NewReader(page)
			if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("%s: groff: %v\n%s", name, err, out)
			}
		}
	}
}

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"plain":      "plain",
		"a-b":        `a\-b`,
		".hidden":    `\&.hidden`,
		"'quoted'":   `\&'quoted'`,
		`back\slash`: `back\eslash`,
	} {
		if got := escape(in); got != want {
			t.Errorf("escape(%q) = %q, want %q", in, got, want)
		}
	}
}
