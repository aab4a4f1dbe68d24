package offload

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

func list(t *testing.T, dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Error(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// start does what a weir does at its start that switches off these features,
// some after the others, and returns what it has logged.
func start(t *testing.T, dir string, features ...Feature) (*Settings, *bytes.Buffer) {
	log := new(bytes.Buffer)
	s, err := Open("n0", dir, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Error(err)
		runtime.Goexit()
	}
	for _, f := range features {
		if err := s.Disable(f); err != nil {
			t.Error(err)
		}
	}
	return s, log
}

// One that is killed does not call Restore. However many of them there were,
// and whatever each switched off, the one that ends puts everything back.
func TestKilled(t *testing.T) {
	for _, tc := range []struct {
		name   string
		off    []Feature   // at the beginning
		killed [][]Feature // what each switches off
		last   []Feature
	}{
		{"same features", nil, [][]Feature{{GRO}}, []Feature{GRO}},
		{"one after the other", nil, [][]Feature{{VLANStripped, GRO}}, []Feature{GRO}},
		{"the next does without", nil, [][]Feature{{GRO}}, nil},
		{"the next wants others", nil, [][]Feature{{VLANStripped}}, []Feature{GRO}},
		{"killed again and again", nil, [][]Feature{{VLANStripped}, {GRO}, {GRO}}, []Feature{GRO}},
		{"off before", []Feature{GRO}, [][]Feature{{VLANStripped, GRO}}, []Feature{GRO}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "made", "if missing")
			inNewNS(t, func() {
				for _, f := range []Feature{GRO, VLANStripped} {
					set(t, "n0", string(f), !slices.Contains(tc.off, f))
				}
				before := features(t, "n0")
				for _, off := range tc.killed {
					if _, log := start(t, dir, off...); log.Len() > 0 {
						t.Errorf("logged %s", log)
					}
				}
				link, err := netlink.LinkByName("n0")
				if err != nil {
					t.Error(err)
					return
				}
				name := fmt.Sprintf("offload-n0-%d.json", link.Attrs().Index)
				if files := list(t, dir); !slices.Equal(files, []string{name}) {
					t.Errorf("left behind: %v, want %s", files, name)
				}
				info, err := os.Stat(filepath.Join(dir, name))
				if err != nil {
					t.Error(err)
				} else if info.Mode() != 0o600 {
					t.Errorf("record has mode %v", info.Mode())
				}

				s, log := start(t, dir, tc.last...)
				if err := s.Restore(); err != nil || log.Len() > 0 {
					t.Errorf("restore: %v, logged %s", err, log)
				}
				if after := features(t, "n0"); !maps.Equal(after, before) {
					t.Errorf("before %v\nafter %v", before, after)
				}
				if files := list(t, dir); len(files) > 0 {
					t.Errorf("left behind: %v", files)
				}
			})
		})
	}
}

// The record is there before anything is off, or who is killed in between
// leaves none.
func TestRecordComesFirst(t *testing.T) {
	dir := t.TempDir()
	inNewNS(t, func() {
		set(t, "n0", "rx-gro", true)
		s, _ := start(t, dir)
		s.keepRecord([]Feature{GRO})
		next, _ := start(t, dir)
		if !slices.Equal(next.turned, []Feature{GRO}) || !features(t, "n0")["rx-gro"] {
			t.Errorf("the next restores %v", next.turned)
		}
	})
}

// A record is for the interface it was made for, not for its successor.
func TestRecordOfAnother(t *testing.T) {
	dir := t.TempDir()
	inNewNS(t, func() {
		other := filepath.Join(dir, "offload-n0-9999.json")
		if err := writeRecord(other, []Feature{GRO}); err != nil {
			t.Error(err)
		}
		set(t, "n0", "rx-gro", false)
		s, _ := start(t, dir, GRO)
		if err := s.Restore(); err != nil {
			t.Error(err)
		}
		if features(t, "n0")["rx-gro"] {
			t.Error("GRO is on, because it was on another interface")
		}
		if _, err := os.Stat(other); err != nil {
			t.Errorf("the other's record: %v", err)
		}
	})
}

// Without its record weir works as if there were none.
func TestRecordFails(t *testing.T) {
	for _, tc := range []struct {
		name string
		make func(path string) error
		want []string // one in each warning
		left bool     // something is, as weir cannot tell whose it is
	}{
		{"not a record", func(path string) error { return os.WriteFile(path, []byte("{"), 0o600) }, []string{"left switched off"}, false},
		{"unknown feature", func(path string) error {
			return os.WriteFile(path, []byte(`{"switched_off": ["rx-all"]}`), 0o600)
		}, []string{"rx-all"}, false},
		{"neither to be read nor written", func(path string) error {
			return os.MkdirAll(filepath.Join(path, "full"), 0o755)
		}, []string{"left switched off", "if weir is killed"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			inNewNS(t, func() {
				set(t, "n0", "rx-gro", true)
				link, err := netlink.LinkByName("n0")
				if err != nil {
					t.Error(err)
					return
				}
				path := filepath.Join(dir, fmt.Sprintf("offload-n0-%d.json", link.Attrs().Index))
				if err := tc.make(path); err != nil {
					t.Error(err)
				}
				s, log := start(t, dir, GRO)
				warnings := strings.Split(strings.TrimSpace(log.String()), "\n")
				if len(warnings) != len(tc.want) {
					t.Errorf("logged %s", log)
				}
				for i, want := range tc.want {
					if i < len(warnings) && (!strings.Contains(warnings[i], want) || !strings.Contains(warnings[i], "WARN")) {
						t.Errorf("logged %s, want %q in it", warnings[i], want)
					}
				}
				if features(t, "n0")["rx-gro"] {
					t.Error("GRO is on")
				}
				if err := s.Restore(); (err != nil) != tc.left {
					t.Errorf("restore: %v", err)
				}
				if !features(t, "n0")["rx-gro"] {
					t.Error("GRO is off")
				}
			})
		})
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add([]byte(`{"switched_off":["rx-gro","rx-vlan-hw-parse"]}`))
	f.Add([]byte(`{"switched_off":["rx-gro","rx-gro"]}`))
	f.Add([]byte(`{"switched_off":["rx-all"]}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := parseRecord(text)
		if err != nil && got != nil {
			t.Errorf("%v in spite of %v", got, err)
		}
		for i, f := range got {
			if !slices.Contains([]Feature{LRO, HardwareGRO, GRO, VLANStripped}, f) || slices.Contains(got[:i], f) {
				t.Errorf("%v", got)
			}
		}
		path := filepath.Join(t.TempDir(), "record")
		if err := writeRecord(path, got); err != nil {
			t.Fatal(err)
		}
		if again, err := readRecord(path); err != nil || !slices.Equal(again, got) {
			t.Errorf("wrote %v, read %v, %v", got, again, err)
		}
	})
}
