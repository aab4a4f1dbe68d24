package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSaysAnything(t *testing.T) {
	packaged, err := os.ReadFile("../../../packaging/weir.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text string
		want bool
	}{
		"as-packaged": {string(packaged), false},
		"empty":       {"", false},
		"blank":       {" \n\t# a comment\n\n", false},
		"one-key":     {string(packaged) + "interfaces: []\n", true},
		"a-mistake":   {"nonsense", true}, // weir says what is wrong with it
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "weir.yaml")
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := saysAnything(path); (err == nil) != c.want {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
	if err := saysAnything(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that is not there says something")
	}
}

// What an update is read from, and that a page which says no is none.
func TestOpen(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/there" {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, "an update")
	}))
	defer server.Close()
	file := filepath.Join(t.TempDir(), "there")
	if err := os.WriteFile(file, []byte("an update"), 0o600); err != nil {
		t.Fatal(err)
	}
	for source, want := range map[string]string{
		server.URL + "/there": "an update", file: "an update", server.URL + "/gone": "", file + ".gone": "",
	} {
		r, err := open(t.Context(), source)
		if (err == nil) != (want != "") {
			t.Errorf("%s: %v", source, err)
		}
		if err != nil {
			continue
		}
		text, err := io.ReadAll(r)
		if string(text) != want || err != nil {
			t.Errorf("%s: %q, %v", source, text, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string // in the error; "": none
	}{
		{nil, ""},
		{[]string{"--version"}, ""},
		{[]string{"updat"}, "unknown command"},
		{[]string{"update"}, "name one update"},
		{[]string{"update", "a", "b"}, "name one update"},
		{[]string{"update", "http://127.0.0.1/x.update"}, "--sha256"},
	} {
		var out bytes.Buffer
		app := newApp()
		app.Writer, app.ErrWriter = &out, &out
		err := app.RunContext(t.Context(), append([]string{"weir-appliance"}, c.args...))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.args, err, c.want)
		}
	}
}
