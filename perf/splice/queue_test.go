package splice

import (
	"bytes"
	"fmt"
	"testing"

	"weir/dataplane/queue"
	"weir/dataplane/queue/queuetest"
)

// What is sent leaves by the other queue as it is, in order, and all buffers of
// both come back. queuetest panics if a frame goes to a queue that it is not of.
func TestSplice(t *testing.T) {
	for _, test := range []struct{ frames, out, limit, want int }{
		{frames: 1, out: 64, want: 1},
		{frames: most, out: most, want: most},
		{frames: 3*most + 5, out: most, want: 3*most + 5}, // more than are moved at a time
		{frames: 10, out: 4, want: 4},                     // no buffers for the rest
		{frames: 10, out: 64, limit: 3, want: 3},          // no room in the NIC
	} {
		t.Run(fmt.Sprintf("%+v", test), func(t *testing.T) {
			in, out := queuetest.New(4*most), queuetest.New(test.out)
			if test.limit > 0 {
				out.LimitSend(test.limit)
			}
			q := New(in, out)
			var packets [][]byte
			for i := range test.frames {
				p := bytes.Repeat([]byte{byte(i)}, 60+i%7)
				packets = append(packets, p)
				if !in.Inject(p) {
					t.Fatal("no room")
				}
			}
			frames := make([]queue.Frame, test.frames)
			if n, err := q.Receive(frames); n != test.frames || err != nil {
				t.Fatalf("received %d of %d: %v", n, test.frames, err)
			}
			n, err := q.Send(frames)
			if n != test.want || err != nil {
				t.Errorf("sent %d, want %d: %v", n, test.want, err)
			}
			sent := out.Sent()
			if len(sent) != test.want {
				t.Fatalf("%d left, want %d", len(sent), test.want)
			}
			for i, p := range sent {
				if !bytes.Equal(p, packets[i]) {
					t.Errorf("packet %d is %x, want %x", i, p, packets[i])
				}
			}
			if len(in.Sent()) != 0 {
				t.Error("something left by the queue that receives")
			}
			if in.Held() != 0 || out.Held() != 0 {
				t.Errorf("%d and %d frames have not come back", in.Held(), out.Held())
			}
			if s := q.Stats(); s.TransmitDropped != uint64(test.frames-test.want) {
				t.Errorf("%d frames were given up, want %d", s.TransmitDropped, test.frames-test.want)
			}
		})
	}
}

// An error of the queue that sends is one of the splice, which keeps no frame.
func TestSendFails(t *testing.T) {
	in, out := queuetest.New(4*most), queuetest.New(64)
	q := New(in, out)
	const frames = most + 10
	for range frames {
		in.Inject(make([]byte, 60))
	}
	batch := make([]queue.Frame, frames)
	if n, err := q.Receive(batch); n != frames || err != nil {
		t.Fatal(n, err)
	}
	out.Remove()
	if _, err := q.Send(batch); err == nil {
		t.Error("no error")
	}
	if in.Held() != 0 {
		t.Errorf("%d frames have not come back", in.Held())
	}
}
