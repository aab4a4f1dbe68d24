package fragment_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"weir/dataplane/fragment"
)

func TestHeldComeOutInOrder(t *testing.T) {
	table := fragment.New(fragment.Config{})
	a, b := key{ID: 1}, key{ID: 2}
	in := map[key][]string{}
	for i := 5; i > 0; i-- {
		for _, k := range []key{a, b} {
			if got := track(table, k, span{i * 8, 8, i != 5}, 0); got != hold() {
				t.Fatalf("%+v", got)
			}
			frame := fmt.Appendf(nil, "fragment %d of %d", i, k.ID)
			if !table.Hold(&k, frame, fragment.Meta{Ingress: uint16(i)}) {
				t.Fatal("not held")
			}
			in[k] = append(in[k], string(frame))
			clear(frame) // the table has its own copy
		}
	}
	if _, _, ok := table.Next(&a); ok {
		t.Error("a fragment comes out before the first has come")
	}
	if table.Held() != 10 {
		t.Errorf("%d held, want 10", table.Held())
	}
	for _, k := range []key{b, a} {
		if got := track(table, k, span{0, 8, true}, 0); got != forward(int(k.ID)) {
			t.Fatalf("%+v", got)
		}
		for i, want := range in[k] {
			frame, meta, ok := table.Next(&k)
			if string(frame) != want || meta.Ingress != uint16(5-i) || !ok {
				t.Errorf("%q %v %v, want %q", frame, meta, ok, want)
			}
		}
		if frame, _, ok := table.Next(&k); ok {
			t.Errorf("%q is one too many", frame)
		}
	}
	if table.Held() != 0 || table.Len() != 0 || table.Expire(100) != 0 {
		t.Errorf("%d held of %d datagrams are left", table.Held(), table.Len())
	}
}

func TestHoldRefuses(t *testing.T) {
	table := fragment.New(fragment.Config{HeldBytes: 1000})
	k := key{ID: 1}
	if table.Hold(&k, []byte("x"), fragment.Meta{}) {
		t.Error("a fragment of an unknown datagram is held")
	}
	track(table, k, span{8, 8, true}, 0)
	if table.Hold(&k, make([]byte, 1001), fragment.Meta{}) || table.Hold(&k, nil, fragment.Meta{}) {
		t.Error("a frame is held that does not fit, or is none")
	}
	if !table.Hold(&k, make([]byte, 1000), fragment.Meta{}) {
		t.Error("a frame that fits is not held")
	}
	track(table, k, span{0, 8, true}, 0)
	if table.Hold(&k, []byte("x"), fragment.Meta{}) {
		t.Error("a fragment is held although the first has come")
	}
}

func TestHeldPerDatagram(t *testing.T) {
	table := fragment.New(fragment.Config{})
	k := key{ID: 1}
	held := 0
	for i := 100; i > 0; i-- {
		track(table, k, span{i * 8, 8, true}, 0)
		if table.Hold(&k, []byte{byte(i)}, fragment.Meta{}) {
			held++
		}
	}
	if held != 64 || table.Held() != 64 || table.Expire(0) != 0 {
		t.Errorf("%d of 100 were held, want 64", held)
	}
}

func TestPoisonDropsHeld(t *testing.T) {
	table := fragment.New(fragment.Config{})
	k := key{ID: 1}
	for i := 1; i <= 3; i++ {
		track(table, k, span{i * 8, 8, true}, 0)
		table.Hold(&k, []byte("later"), fragment.Meta{})
	}
	track(table, k, span{0, 16, true}, 0)
	if table.Held() != 0 {
		t.Errorf("%d held", table.Held())
	}
	if lost := table.Expire(0); lost != 3 {
		t.Errorf("%d lost, want 3", lost)
	}
	if lost := table.Expire(0); lost != 0 {
		t.Errorf("%d are counted twice", lost)
	}
	if _, _, ok := table.Next(&k); ok {
		t.Error("a fragment of a poisoned datagram comes out")
	}
}

// TestHeldGivenUpAfterTheFirst is about a caller that does not take out what is
// held.
func TestHeldGivenUpAfterTheFirst(t *testing.T) {
	for _, complete := range []bool{true, false} {
		table := fragment.New(fragment.Config{})
		k := key{ID: 1}
		track(table, k, span{8, 8, !complete}, 0)
		table.Hold(&k, []byte("later"), fragment.Meta{})
		track(table, k, span{0, 8, true}, 0)
		if table.Expire(16) != 0 || table.Held() != 1 || table.Len() != 1 {
			t.Error("given up too early")
		}
		if lost := table.Expire(17); lost != 1 || table.Held() != 0 || (table.Len() == 0) != complete {
			t.Errorf("complete %v: %d lost, %d datagrams left", complete, lost, table.Len())
		}
	}
}

// TestHeldRoomIsUsed holds exactly as much as there is room for.
func TestHeldRoomIsUsed(t *testing.T) {
	table := fragment.New(fragment.Config{HeldBytes: 4096})
	for id := range 100 {
		k := key{ID: uint32(id)}
		track(table, k, span{8, 8, true}, 0)
		if !table.Hold(&k, bytes.Repeat([]byte{byte(id)}, 1024), fragment.Meta{}) {
			t.Fatal("not held")
		}
		if want := min(id+1, 4); table.Held() != want {
			t.Fatalf("%d held, want %d", table.Held(), want)
		}
	}
	for id := 96; id < 100; id++ {
		k := key{ID: uint32(id)}
		track(table, k, span{0, 8, true}, 0)
		if frame, _, ok := table.Next(&k); !ok || !bytes.Equal(frame, bytes.Repeat([]byte{byte(id)}, 1024)) {
			t.Errorf("datagram %d: %x", id, frame)
		}
	}
}

// TestHeldRoomIsNotExceeded holds frames next to each other's ends.
func TestHeldRoomIsNotExceeded(t *testing.T) {
	for _, test := range []struct{ sizes, held []int }{
		{[]int{1000, 3096, 1}, []int{1, 2, 2}},
		{[]int{1000, 3097}, []int{1, 1}},
		{[]int{1000, 3000, 96, 1}, []int{1, 2, 3, 3}},
		{[]int{1000, 3000, 1000, 1}, []int{1, 2, 2, 2}},
		{[]int{1000, 3000, 1001}, []int{1, 2, 1}},
		{[]int{1000, 3000, 500, 500, 1}, []int{1, 2, 2, 3, 3}},
		{[]int{1000, 3000, 500, 501}, []int{1, 2, 2, 2}},
		{[]int{1000, 3000, 4096}, []int{1, 2, 1}},
	} {
		table := fragment.New(fragment.Config{HeldBytes: 4096})
		for id, size := range test.sizes {
			k := key{ID: uint32(id)}
			track(table, k, span{8, 8, true}, 0)
			if !table.Hold(&k, bytes.Repeat([]byte{byte(id + 1)}, size), fragment.Meta{}) || table.Held() != test.held[id] {
				t.Errorf("%v: %d held after frame %d, want %d", test.sizes, table.Held(), id, test.held[id])
			}
		}
		for id, size := range test.sizes {
			k := key{ID: uint32(id)}
			track(table, k, span{0, 8, true}, 0)
			if frame, _, ok := table.Next(&k); ok && !bytes.Equal(frame, bytes.Repeat([]byte{byte(id + 1)}, size)) {
				t.Errorf("%v: frame %d has changed", test.sizes, id)
			}
		}
	}
}

// TestHeldRoom fills a small store many times over, with frames of all sizes,
// and looks whether what comes out is what went in.
func TestHeldRoom(t *testing.T) {
	const size, rounds = 4096, 3000
	random := rand.New(rand.NewPCG(3, 4))
	table := fragment.New(fragment.Config{HeldBytes: size, Datagrams: 1 << 15})
	in := map[uint32][][]byte{}
	put, out := 0, 0
	next := uint32(0)
	for range rounds {
		for range 1 + random.IntN(12) {
			id := next - uint32(random.IntN(3))
			if random.IntN(3) > 0 {
				next++
				id = next
			}
			k := key{ID: id}
			if track(table, k, span{8 * (1 + len(in[id])), 8, true}, 0) != hold() {
				continue // its first one has come
			}
			frame := make([]byte, 1+random.IntN([]int{20, 1500}[random.IntN(2)]))
			for i := range frame {
				frame[i] = byte(put + i)
			}
			if !table.Hold(&k, frame, fragment.Meta{Ingress: uint16(put)}) {
				delete(in, id) // it would have had to push out its own
				continue
			}
			in[id] = append(in[id], frame)
			put++
		}
		for id, frames := range in {
			if random.IntN(3) == 0 {
				continue // stays where it is
			}
			delete(in, id)
			k := key{ID: id}
			if got := track(table, k, span{0, 8, true}, 0); got != forward(int(id)) {
				t.Fatalf("%+v", got)
			}
			for i := 0; ; i++ {
				frame, _, ok := table.Next(&k)
				if !ok {
					break // or has been given up, some or all of it
				}
				// What was given up was the beginning.
				for len(frames) > 0 && !bytes.Equal(frames[0], frame) {
					frames = frames[1:]
				}
				if len(frames) == 0 {
					t.Fatalf("datagram %d: fragment %d has changed", id, i)
				}
				frames = frames[1:]
				out++
			}
		}
	}
	lost := table.Expire(0)
	if put != out+lost+table.Held() || out < rounds || lost < rounds {
		t.Errorf("%d were held; %d came out, %d were lost, %d are there", put, out, lost, table.Held())
	}
}
