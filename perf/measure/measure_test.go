package measure

import "testing"

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
