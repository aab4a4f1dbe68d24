package measure

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// What is read is what was written, under any name.
func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	want := played{Count: 3, Missing: []string{"a"}}
	if err := WriteFile(path, want); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if text := "{\n\t\"kind\": \"played\",\n\t\"count\": 3,\n\t\"missing\": [\n\t\t\"a\"\n\t]\n}\n"; err != nil || string(b) != text {
		t.Errorf("%v, %s, want %s", err, b, text)
	}
	if got, err := ReadFile[played](path); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
}

// A report of another kind is refused: by what is in it, or else, if nothing is, by
// its name. What says nothing is believed.
func TestReadFile(t *testing.T) {
	for _, test := range []struct{ name, content, kind, err string }{
		{"2026-11-27-wire.json", `{"kind": "played", "count": 1}`, "played", ""},
		{"x.json", `{"kind": "wire"}`, "wire", "it is one of wire, not of played: perf wire FILE"},
		{"2026-11-27-played.json", `{"kind": "wire"}`, "wire", "it is one of wire"},
		{"2026-11-27-played.json", `{"count": 1}`, "played", ""},
		{"2026-11-27b-wire.json", `{"count": 1}`, "wire", "it is one of wire"},
		{"my-wire.json", `{"count": 1}`, "", ""},
		{"x.json", `{"count": 1}`, "", ""},
		{"x.json", `{`, "", "read report"},
		{"x.json", `{"count": "1"}`, "", "read report"},
	} {
		path := filepath.Join(t.TempDir(), test.name)
		if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if kind, _ := FileKind(path); kind != test.kind {
			t.Errorf("%s, %s: kind %q, want %q", test.name, test.content, kind, test.kind)
		}
		r, err := ReadFile[played](path)
		if test.err == "" && (err != nil || r.Count != 1) || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%s, %s: %+v, %v, want %q", test.name, test.content, r, err, test.err)
		}
	}
}
