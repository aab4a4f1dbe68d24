package measure

import (
	"os"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"testing"
)

func TestSpread(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   Spread
	}{
		{nil, Spread{}},
		{[]float64{3}, Spread{3, 3, 3}},
		{[]float64{4, 1}, Spread{2.5, 1, 4}},
		{[]float64{5, 1, 2}, Spread{2, 1, 5}},
	} {
		if got := SpreadOf(test.values, func(v *float64) float64 { return *v }); got != test.want {
			t.Errorf("%v: %v, want %v", test.values, got, test.want)
		}
	}
}

// What the linker was told goes before what go build has noted, and there is
// nothing else.
func TestBuiltFrom(t *testing.T) {
	revision := debug.BuildSetting{Key: "vcs.revision", Value: "0123"}
	changed, unchanged := debug.BuildSetting{Key: "vcs.modified", Value: "true"}, debug.BuildSetting{Key: "vcs.modified", Value: "false"}
	for _, test := range []struct {
		stamp string
		noted []debug.BuildSetting
		want  string
	}{
		{"abcd+", []debug.BuildSetting{revision}, "abcd+"},
		{"", []debug.BuildSetting{{Key: "GOOS", Value: "linux"}, revision, unchanged}, "0123"},
		{"", []debug.BuildSetting{changed, revision}, "0123+"},
		{"", nil, "unknown"},
	} {
		if got := builtFrom(test.stamp, test.noted); got != test.want {
			t.Errorf("%q and %v: %q, want %q", test.stamp, test.noted, got, test.want)
		}
	}
}

// A program that says its version is asked for it, and one that cannot is an error.
func TestVersionOf(t *testing.T) {
	program := filepath.Join(t.TempDir(), "weir")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n[ \"$*\" = --version ] && echo weir version 0123\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := VersionOf(t.Context(), program); err != nil || got != "weir version 0123" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := VersionOf(t.Context(), program+"-not"); err == nil {
		t.Errorf("%q of a program that is not there", got)
	}
}

func TestGroupBy(t *testing.T) {
	got := GroupBy([]int{7, 2, 5, 4, 1}, func(n *int) bool { return *n%2 == 0 })
	if want := map[bool][]int{true: {2, 4}, false: {7, 5, 1}}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := GroupBy(nil, func(n *int) int { return *n }); len(got) != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

func TestShortCommit(t *testing.T) {
	for commit, want := range map[string]string{
		"0123456789abcdef":  "0123456789ab",
		"0123456789abcdef+": "0123456789ab with changes",
		"unknown":           "unknown",
	} {
		if got := shortCommit(commit); got != want {
			t.Errorf("%s: %q, want %q", commit, got, want)
		}
	}
}

// A name with brackets and spaces does not move the fields.
func TestReadTicks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stat")
	for content, want := range map[string]Ticks{
		"7 (weir) R 1 7 7 0 -1 4194560 100 0 0 0 30 10 0 0 20 0 1":     {30, 10},
		"7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 99": {1, 2},
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadTicks(path); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", content, got, err, want)
		}
	}
	if err := os.WriteFile(path, []byte("7 (weir) R 1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadTicks(path); err == nil {
		t.Error("times of a file that has none")
	}
	if share := (Ticks{31, 12}).Since(Ticks{1, 2}).UserShare(); share != 0.75 {
		t.Errorf("user share %g, want 0.75", share)
	}
	if share := (Ticks{}).UserShare(); share != 0 {
		t.Errorf("user share of nothing %g", share)
	}
}

func TestBinary(t *testing.T) {
	for n, want := range map[uint32]string{0: "0", 1: "1", 1000: "1000", 1 << 10: "1 Ki", 1<<16 + 1: "65537", 1 << 16: "64 Ki", 1 << 20: "1 Mi", 3 << 19: "1536 Ki"} {
		if got := Binary(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
