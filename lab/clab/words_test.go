package clab

import (
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestWords(t *testing.T) {
	for _, test := range []struct {
		command string
		want    []string
		err     error
		shell   bool // a shell splits it in the same way
	}{
		{"", nil, nil, true},
		{"  \t\n ", nil, nil, true},
		{"sleep infinity", []string{"sleep", "infinity"}, nil, true},
		{" a  b\tc\nd ", []string{"a", "b", "c", "d"}, nil, false}, // a new line ends a command of a shell
		{`nginx -g "daemon off;"`, []string{"nginx", "-g", "daemon off;"}, nil, true},
		{`sh -c 'echo "$1" > /x; a && b'`, []string{"sh", "-c", `echo "$1" > /x; a && b`}, nil, true},
		{`a"b c"d'e f'g`, []string{"ab cde fg"}, nil, true},
		{`'' "" x`, []string{"", "", "x"}, nil, true},
		{`a\ b \"c\'`, []string{"a b", `"c'`}, nil, true},
		{`"a \"b\" \\ c"`, []string{`a "b" \ c`}, nil, true},
		{`'a \'`, []string{`a \`}, nil, true},
		{`a # b c`, []string{"a"}, nil, true},
		{"a # b\nc", []string{"a", "c"}, nil, false},
		{`a#b`, []string{"a#b"}, nil, true},
		{`"#a" \#b`, []string{"#a", "#b"}, nil, true},
		{`"\n"`, []string{"n"}, nil, false}, // a shell keeps this backslash
		{`a && b | c > d`, []string{"a", "&&", "b", "|", "c", ">", "d"}, nil, false},
		{`größe "ü ö"`, []string{"größe", "ü ö"}, nil, true},
		{`a "b`, nil, errOpenQuote, false},
		{`a 'b`, nil, errOpenQuote, false},
		{`a \`, nil, errOpenEscape, false},
		{`a "b\`, nil, errOpenEscape, false},
	} {
		got, err := words(test.command)
		if !slices.Equal(got, test.want) || !errors.Is(err, test.err) {
			t.Errorf("%q: %q, %v, want %q, %v", test.command, got, err, test.want, test.err)
		}
		if !test.shell {
			continue
		}
		out, err := exec.Command("sh", "-c", `for word in `+strings.ReplaceAll(test.command, "\n", " ")+"\ndo printf '%s\\0' \"$word\"; done").Output()
		if err != nil {
			t.Errorf("%q: sh: %v", test.command, err)
			continue
		}
		fields := strings.Split(string(out), "\x00")
		if fields = fields[:len(fields)-1]; !slices.Equal(fields, got) {
			t.Errorf("%q: %q, a shell says %q", test.command, got, fields)
		}
	}
}
