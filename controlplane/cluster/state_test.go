package cluster

import (
	"bytes"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
)

func TestStatesOnTheWire(t *testing.T) {
	want := []nodeState{
		{Node: "a", Start: 7, Version: 3, Topics: map[string][]byte{"l2": {0, 1, 255}, "ipam": []byte("x")}},
		{Node: "b"},
	}
	got, err := decodeStates(encodeStates(want))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "{}", "[{}]", `[{"node":7}]`} {
		if s, err := decodeStates([]byte(bad)); err == nil {
			t.Errorf("%q is read as %v", bad, s)
		}
	}
}

func FuzzDecodeStates(f *testing.F) {
	f.Add(encodeStates([]nodeState{{Node: "a", Start: 1, Version: 2, Topics: map[string][]byte{"t": []byte("x")}}}))
	f.Add([]byte(`[{"node":"a","start":-1,"version":18446744073709551615,"topics":{"":null}}]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := New(Config{Node: "self", Key: make([]byte, 16)}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		for range pendingMax + 1 {
			c.merge(b)
		}
		if len(c.members) != 0 || len(c.pending) > pendingMax {
			t.Errorf("%d members, %d pending", len(c.members), len(c.pending))
		}
		states, err := decodeStates(b)
		if err != nil {
			return
		}
		again, err := decodeStates(encodeStates(states))
		if err != nil || !bytes.Equal(encodeStates(again), encodeStates(states)) {
			t.Errorf("%v is read back as %v, %v", states, again, err)
		}
	})
}

func TestMeta(t *testing.T) {
	if v, start, err := decodeMeta(encodeMeta(1 << 60)); v != 1 || start != 1<<60 || err != nil {
		t.Errorf("%d, %d, %v", v, start, err)
	}
	for meta, want := range map[string]string{"": "no weir", "\x02abc": "speaks version 2", "\x01abc": "speaks version 1"} {
		if _, _, err := decodeMeta([]byte(meta)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", meta, err)
		}
	}
}

func TestLogLines(t *testing.T) {
	var out bytes.Buffer
	w := newLogWriter(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{
		Level: slog.LevelInfo,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	})))
	for _, line := range []string{
		"[DEBUG] memberlist: Stream connection from=127.0.0.1:5\n",
		"[INFO] memberlist: Suspect b has failed, no acks received\n",
		"[WARN] memberlist: Refuting a suspect message (from: b)\n",
		"[ERR] memberlist: Decrypt packet failed: no installed keys could decrypt the message from=127.0.0.1:5\n",
		"[ERR] memberlist: Decrypt packet failed: no installed keys could decrypt the message from=127.0.0.1:6\n",
		"[DEBUG] memberlist: failed to join 127.0.0.1:7946: no installed keys could decrypt the message\n",
		"something else\n",
	} {
		if n, err := fmt.Fprint(w, line); n != len(line) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	const detail = " msg=\"a node speaks with another key: set the same cluster.key on all nodes\" detail="
	want := `level=INFO msg="cluster: Suspect b has failed, no acks received"
level=WARN msg="cluster: Refuting a suspect message (from: b)"
level=ERROR` + detail + `"Decrypt packet failed: no installed keys could decrypt the message from=127.0.0.1:5"
level=ERROR` + detail + `"failed to join 127.0.0.1:7946: no installed keys could decrypt the message"
level=WARN msg="cluster: something else"
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}
