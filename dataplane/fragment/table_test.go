package fragment_test

import (
	"testing"

	"weir/dataplane/flow"
	"weir/dataplane/fragment"
	"weir/dataplane/stats"
)

type (
	span = fragment.Span
	key  = fragment.Key
)

func ports(n int) *fragment.Ports { return &fragment.Ports{Src: uint16(n), Dst: 53, Proto: 17} }

// track calls Track, with ports if the fragment is the first.
func track(table *fragment.Table, k key, s span, now flow.Tick) fragment.Result {
	if s.Offset == 0 {
		return table.Track(&k, s, ports(int(k.ID)), now)
	}
	return table.Track(&k, s, nil, now)
}

func forward(id int) fragment.Result {
	return fragment.Result{Action: fragment.Forward, Ports: *ports(id)}
}

func drop(reason stats.Reason) fragment.Result { return fragment.Result{Reason: reason} }

func hold() fragment.Result { return fragment.Result{Action: fragment.Hold} }

func TestTrack(t *testing.T) {
	const more = true
	type seen struct {
		span span
		want fragment.Result
	}
	for name, test := range map[string]struct {
		fragments []seen
		left      int // datagrams remembered in the end
	}{
		"in order": {[]seen{
			{span{0, 1480, more}, forward(9)},
			{span{1480, 1480, more}, forward(9)},
			{span{2960, 41, false}, forward(9)},
		}, 0},
		"the middle last": {[]seen{
			{span{0, 1480, more}, forward(9)},
			{span{2960, 41, false}, forward(9)},
			{span{1480, 1480, more}, forward(9)},
		}, 0},
		"backwards": {[]seen{
			{span{2960, 41, false}, hold()},
			{span{1480, 1480, more}, hold()},
			{span{0, 1480, more}, forward(9)},
		}, 0},
		"incomplete": {[]seen{
			{span{0, 1480, more}, forward(9)},
			{span{2960, 41, false}, forward(9)},
		}, 1},
		"duplicate first": {[]seen{
			{span{0, 1480, more}, forward(9)},
			{span{0, 1480, more}, drop(stats.FragmentDuplicate)},
			{span{1480, 8, false}, forward(9)},
		}, 0},
		"duplicate that is held": {[]seen{
			{span{1480, 9, false}, hold()},
			{span{1480, 9, false}, drop(stats.FragmentDuplicate)},
			{span{0, 1480, more}, forward(9)},
		}, 0},
		"duplicate that covers two": {[]seen{
			{span{0, 8, more}, forward(9)},
			{span{8, 8, more}, forward(9)},
			{span{0, 16, more}, drop(stats.FragmentDuplicate)},
			{span{16, 8, false}, forward(9)},
		}, 0},
		"overlap from before": {[]seen{
			{span{8, 16, more}, hold()},
			{span{0, 16, more}, drop(stats.FragmentOverlap)},
			{span{0, 8, more}, drop(stats.FragmentOverlap)},
			{span{24, 8, false}, drop(stats.FragmentOverlap)},
		}, 1},
		"overlap from behind": {[]seen{
			{span{0, 24, more}, forward(9)},
			{span{16, 16, false}, drop(stats.FragmentOverlap)},
			{span{24, 8, false}, drop(stats.FragmentOverlap)},
		}, 1},
		"overlap from inside the last unit": {[]seen{
			{span{0, 8, more}, forward(9)},
			{span{8, 3, false}, forward(9)},
		}, 0},
		"overlap around": {[]seen{
			{span{8, 8, more}, hold()},
			{span{0, 24, more}, drop(stats.FragmentOverlap)},
		}, 1},
		"overlap far away": {[]seen{
			{span{0, 8, more}, forward(9)},
			{span{64 * 8 * 3, 64 * 8 * 2, more}, forward(9)},
			{span{64 * 8 * 2, 64*8 + 8, more}, drop(stats.FragmentOverlap)},
		}, 1},
		"beyond the last": {[]seen{
			{span{16, 8, false}, hold()},
			{span{24, 8, more}, drop(stats.FragmentOverlap)},
			{span{0, 16, more}, drop(stats.FragmentOverlap)},
		}, 1},
		"two last ones": {[]seen{
			{span{0, 16, more}, forward(9)},
			{span{24, 8, false}, forward(9)},
			{span{32, 8, false}, drop(stats.FragmentOverlap)},
		}, 1},
		"last before others": {[]seen{
			{span{0, 8, more}, forward(9)},
			{span{24, 8, more}, forward(9)},
			{span{8, 8, false}, drop(stats.FragmentOverlap)},
		}, 1},
		"the longest": {[]seen{
			{span{0, 65528, more}, forward(9)},
			{span{65528, 7, false}, forward(9)},
		}, 0},
		"too long": {[]seen{
			{span{0, 65528, more}, forward(9)},
			{span{65528, 8, false}, drop(stats.Malformed)},
			{span{65528, 8, more}, drop(stats.Malformed)},
		}, 1},
		"odd length":   {[]seen{{span{0, 1481, more}, drop(stats.Malformed)}}, 0},
		"odd offset":   {[]seen{{span{3, 8, more}, drop(stats.Malformed)}}, 0},
		"nothing":      {[]seen{{span{0, 0, more}, drop(stats.Malformed)}, {span{8, 0, false}, drop(stats.Malformed)}}, 0},
		"out of range": {[]seen{{span{-8, 8, more}, drop(stats.Malformed)}, {span{8, -8, more}, drop(stats.Malformed)}}, 0},
		"a whole one":  {[]seen{{span{0, 100, false}, forward(9)}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			table := fragment.New(fragment.Config{})
			for i, f := range test.fragments {
				if got := track(table, key{ID: 9}, f.span, 5); got != f.want {
					t.Errorf("fragment %d, %+v: %+v, want %+v", i, f.span, got, f.want)
				}
			}
			if table.Len() != test.left {
				t.Errorf("%d datagrams are remembered, want %d", table.Len(), test.left)
			}
		})
	}
}

func TestKeysAreKeptApart(t *testing.T) {
	keys := []key{{}, {Src: [16]byte{15: 1}}, {Dst: [16]byte{15: 1}}, {ID: 1 << 16}, {Proto: 17}}
	table := fragment.New(fragment.Config{})
	for i := range keys {
		if got := table.Track(&keys[i], span{0, 8, true}, ports(i), 0); got != forward(i) {
			t.Errorf("key %d: %+v", i, got)
		}
	}
	for i := range keys {
		if got := table.Track(&keys[i], span{8, 8, true}, nil, 0); got != forward(i) {
			t.Errorf("key %d: %+v", i, got)
		}
	}
}

func TestExpire(t *testing.T) {
	// Near the end of the ticks' range, so that it wraps in between.
	start := ^flow.Tick(0) - 20
	cfg := fragment.Config{Timeout: 100, Wait: 16}
	late := func(t *testing.T, s span, want, then fragment.Result, after flow.Tick) {
		t.Helper()
		for expire := range 2 {
			table := fragment.New(cfg)
			track(table, key{ID: 9}, s, start)
			if expire != 0 {
				for range 200 {
					table.Expire(start + after)
				}
			}
			if got := track(table, key{ID: 9}, span{64, 8, true}, start+after); got != want {
				t.Errorf("after %d: %+v, want %+v", after, got, want)
			}
			if got := track(table, key{ID: 9}, span{0, 32, true}, start+after); got != then {
				t.Errorf("after %d, first: %+v, want %+v", after, got, then)
			}
		}
	}
	first, later := span{0, 8, true}, span{8, 8, true}
	late(t, first, forward(9), drop(stats.FragmentOverlap), 100) // still known
	late(t, first, hold(), forward(9), 101)                      // as if never seen
	late(t, later, hold(), drop(stats.FragmentOverlap), 16)      // still waiting
	late(t, later, hold(), forward(9), 17)                       // as if never seen

	// A stream of fragments keeps no datagram alive.
	table := fragment.New(cfg)
	for i := range 13 {
		track(table, key{ID: 9}, span{i * 8, 8, true}, start+flow.Tick(8*i))
	}
	if got := track(table, key{ID: 9}, span{1000, 8, true}, start+101); got != hold() {
		t.Errorf("after the time-out: %+v", got)
	}
}

func TestExpireCountsHeld(t *testing.T) {
	table := fragment.New(fragment.Config{})
	for id := range 300 {
		k := key{ID: uint32(id)}
		track(table, k, span{8, 8, true}, flow.Tick(id/100))
		table.Hold(&k, []byte("later"), fragment.Meta{})
	}
	held := table.Held() // a set may have been full
	lost := table.Expire(0)
	if held+lost != 300 || held < 250 || table.Len() != held {
		t.Fatalf("%d held, %d lost, %d datagrams", held, lost, table.Len())
	}
	if table.Expire(16) != 0 || table.Held() != held {
		t.Error("something was given up too early")
	}
	for calls := 0; table.Held() > 0; calls++ {
		n := table.Expire(19)
		if lost += n; n == 0 || n > 80 || calls > 10 {
			t.Fatalf("call %d gave up %d, %d are left", calls, n, table.Held())
		}
	}
	if lost != 300 || table.Len() != 0 {
		t.Errorf("%d lost, %d datagrams left", lost, table.Len())
	}
}

// TestFloodOfLoneFragments must not cost a datagram its place of which the
// first fragment has come, nor one that keeps to the order.
func TestFloodOfLoneFragments(t *testing.T) {
	table := fragment.New(fragment.Config{})
	for id := range 100 {
		track(table, key{ID: uint32(id)}, span{0, 8, true}, 0)
	}
	accepted, refused := 0, 0
	for id := range 100_000 {
		k := key{ID: uint32(id), Proto: 6}
		switch got := track(table, k, span{8, 8, true}, 1); got {
		case hold():
			if table.Hold(&k, make([]byte, 60), fragment.Meta{}) {
				accepted++
			}
		case drop(stats.FragmentLost):
			refused++
		default:
			t.Fatalf("%+v", got)
		}
	}
	if lost := table.Expire(1); lost+table.Held() != accepted || table.Held() < 500 {
		t.Errorf("%d accepted, but %d lost and %d held", accepted, lost, table.Held())
	}
	if table.Len() > 1024 || refused > 1000 {
		t.Errorf("%d datagrams, %d refused", table.Len(), refused)
	}
	for id := range 100 {
		if got := track(table, key{ID: uint32(id)}, span{8, 8, true}, 1); got != forward(id) {
			t.Fatalf("datagram %d after the flood: %+v", id, got)
		}
		k := key{ID: uint32(id), Proto: 99}
		track(table, k, span{0, 8, true}, 1)
		if got := track(table, k, span{8, 8, false}, 1); got != forward(id) {
			t.Fatalf("datagram %d in the flood: %+v", id, got)
		}
	}
}

// TestFullOfFirstFragments lets a new first one push out the oldest, and a lone
// later one nothing.
func TestFullOfFirstFragments(t *testing.T) {
	table := fragment.New(fragment.Config{Datagrams: 1}) // one set
	for id := range 9 {
		if got := track(table, key{ID: uint32(id)}, span{0, 8, true}, flow.Tick(id)); got != forward(id) {
			t.Fatalf("%d: %+v", id, got)
		}
	}
	if table.Len() != 8 {
		t.Fatalf("%d datagrams", table.Len())
	}
	if got := track(table, key{ID: 0}, span{8, 8, true}, 9); got != drop(stats.FragmentLost) {
		t.Errorf("the oldest: %+v", got)
	}
	if got := track(table, key{ID: 99}, span{8, 8, true}, 9); got != drop(stats.FragmentLost) {
		t.Errorf("a lone one: %+v", got)
	}
	for id := 1; id < 9; id++ {
		if got := track(table, key{ID: uint32(id)}, span{8, 8, true}, 9); got != forward(id) {
			t.Errorf("%d: %+v", id, got)
		}
	}
	// Poisoned ones go before known ones, whatever their age.
	track(table, key{ID: 8}, span{0, 24, true}, 9)
	track(table, key{ID: 100}, span{0, 8, true}, 9)
	if got := track(table, key{ID: 1}, span{16, 8, true}, 9); got != forward(1) {
		t.Errorf("pushed out before a poisoned one: %+v", got)
	}
}

func TestNoAllocs(t *testing.T) {
	table := fragment.New(fragment.Config{})
	frame := make([]byte, 1500)
	first := ports(1)
	id := uint32(0)
	for name, run := range map[string]func(){
		"in order": func() {
			id++
			k := key{ID: id}
			table.Track(&k, span{0, 1480, true}, first, 0)
			table.Track(&k, span{1480, 1480, false}, nil, 0)
		},
		"backwards": func() {
			id++
			k := key{ID: id}
			table.Track(&k, span{1480, 1480, false}, nil, 0)
			table.Hold(&k, frame, fragment.Meta{})
			table.Track(&k, span{0, 1480, true}, first, 0)
			table.Next(&k)
		},
		"lone": func() {
			id++
			k := key{ID: id}
			table.Track(&k, span{1480, 1480, false}, nil, 0)
			table.Hold(&k, frame, fragment.Meta{})
			table.Expire(0)
		},
	} {
		if n := testing.AllocsPerRun(3000, run); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
