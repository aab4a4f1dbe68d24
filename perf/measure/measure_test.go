package measure

import (
	"os"
	"path/filepath"
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
