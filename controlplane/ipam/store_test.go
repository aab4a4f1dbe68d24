package ipam

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestStore(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "made", "here")
	s := NewStore(folder)
	if all, err := s.Load(); err != nil || len(all) != 0 {
		t.Errorf("before anything is saved: %v, error %v", all, err)
	}
	for _, all := range [][]Allocation{
		{has("web", "203.0.113.1", 1), has("web", "2001:db8::1", 1), has("dns", "203.0.113.2", 2)}, {has("web", "203.0.113.1", 1)}, nil,
	} {
		if err := s.Save(all); err != nil {
			t.Fatal(err)
		}
		if got, err := NewStore(folder).Load(); err != nil || !slices.Equal(got, Merge(all, nil)) {
			t.Errorf("saved %v, loaded %v, error %v", all, got, err)
		}
	}
	files, err := os.ReadDir(folder)
	if err != nil || len(files) != 1 || files[0].Name() != "allocations.json" || s.Path() != filepath.Join(folder, "allocations.json") {
		t.Errorf("%v, error %v", files, err)
	}
}

// What is in the field must be read by later versions.
func TestStoreReadsVersionOne(t *testing.T) {
	s := NewStore(t.TempDir())
	const text = `{"version": 1, "allocations": [{"service": "web", "pool": "public", "address": "203.0.113.1", "since": "2026-01-02T11:59:00Z"}]}`
	if err := os.WriteFile(s.Path(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Load(); err != nil || !slices.Equal(got, []Allocation{has("web", "203.0.113.1", 1)}) {
		t.Errorf("loaded %v, error %v", got, err)
	}
}

func TestStoreOfGarbage(t *testing.T) {
	s := NewStore(t.TempDir())
	for text, want := range map[string]string{
		"":                                 "EOF",
		"{":                                "unexpected EOF",
		"[]":                               "cannot unmarshal",
		`{"version":1,"allocations":[]}x`:  "there is more behind the end",
		`{"allocations":[]}`:               "its version is 0, and this weir knows 1",
		`{"version":2,"allocations":[]}`:   "its version is 2, and this weir knows 1",
		`{"version":1,"allocations":[{}]}`: "allocation 0 is without a service, an address or a time",
		`{"version":1,"allocations":[{"service":"a","address":"x"}]}`:                                           "unable to parse IP",
		`{"version":1,"allocations":[{"service":"a","address":"fe80::1%eth0","since":"2026-01-02T12:00:00Z"}]}`: "allocation 0 is without",
		`{"version":1,"allocations":[{"service":"a","address":"10.0.0.1","since":"soon"}]}`:                     "parsing time",
	} {
		if err := os.WriteFile(s.Path(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := s.Load()
		if len(got) > 0 || err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), s.Path()) || !strings.Contains(err.Error(), "remove the file") {
			t.Errorf("%s: %v, error %v, want %q", text, got, err, want)
		}
	}
}

func TestStoreThatCannotBe(t *testing.T) {
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := NewStore(filepath.Join(folder, "file"))
	if err := s.Save(nil); err == nil || !strings.Contains(err.Error(), "which a restart would forget") {
		t.Errorf("saved in a file: %v", err)
	}
	if _, err := s.Load(); err == nil || !strings.Contains(err.Error(), "read allocations: ") {
		t.Errorf("loaded from a file: %v", err)
	}
}
