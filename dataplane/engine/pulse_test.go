package engine

import "testing"

func TestPulse(t *testing.T) {
	var p pulse
	for n, look := range []struct {
		turns uint32
		stuck bool
	}{
		{1, false}, {5, false},
		{5, false}, {5, false}, {5, false}, {6, false}, // nearly
		{6, false}, {6, false}, {6, false}, {6, true}, {6, true},
		{0, false}, // the count has gone round
		{0, false}, {0, false}, {0, false}, {0, true}, {9, false},
	} {
		if p.look(look.turns); p.stuck() != look.stuck {
			t.Fatalf("look %d: stuck %t", n, p.stuck())
		}
	}
	var never pulse // a worker that does not even begin
	for n := range missesStuck {
		if never.stuck() {
			t.Fatalf("stuck after %d looks", n)
		}
		never.look(0)
	}
	if !never.stuck() {
		t.Error("a worker that never begins is not stuck")
	}
}
