package clab

import (
	"strings"
	"testing"
)

func environment(variables map[string]string) Lookup {
	return func(name string) (string, bool) {
		value, set := variables[name]
		return value, set
	}
}

func TestExpand(t *testing.T) {
	lookup := environment(map[string]string{"NAME": "value", "EMPTY": "", "LINES": "a\nb", "ÄN": "umlaut", "a1_": "x"})
	for _, test := range []struct {
		text, want string
		mistake    string // part of the only one; empty: there is none
	}{
		{"plain", "plain", ""},
		{"$NAME ${NAME} x$NAME.y", "value value xvalue.y", ""},
		{"$ÄN $a1_.", "umlaut x.", ""},
		{"${NAME:=d} ${NAME:-d} ${NAME=d} ${NAME-d}", "value value value value", ""},
		{"${EMPTY:=d}|${EMPTY:-d}|${EMPTY=d}|${EMPTY-d}|$EMPTY", "d|d|||", ""},
		{"${NONE:=d}|${NONE:-d}|${NONE=d}|${NONE-d}", "d|d|d|d", ""},
		{"${NAME:+a}|${NAME+a}|${NONE:+a}|${NONE+a}", "a|a||", ""},
		{"${HOST_IMAGE:=nicolaka/netshoot:v1} ${X:=a:b=c-d+e f}", "nicolaka/netshoot:v1 a:b=c-d+e f", ""},
		{"${NONE:=}", "", ""},
		{"${NONE:=$NAME} ${NAME:+$a1_}", "value x", ""},
		{"$$NAME $$$NAME $${NAME}", "$NAME $value ${NAME}", ""},
		{"$(date) $? $\" $ $_ end$", "$(date) $? $\" $ $_ end$", ""},
		{"# costs $5\n  # $NONE\nx", "# costs \n  # \nx", ""},
		{"a\n$NONE\n", "a\n\n", "2: $NONE: the variable is not set"},
		{"a # $NONE", "a # ", "1: $NONE"},
		{"awk '{print $1}'", "awk '{print }'", "or $$1 for a dollar sign"},
		{"${NONE}", "", "${NONE}: the variable is not set"},
		{"${NAME:=a\nb}", "\nb}", "1: ${NAME:=a: no closing brace on this line"},
		{"a\n# ${NAME\nb", "a\n# \nb", "2: ${NAME: no closing brace"},
		{"${}", "", "want the name of a variable"},
		{"${-x}", "", "want the name of a variable"},
		{"${NAME?x}", "", "want :=, :- or :+ after NAME"},
		{"${NONE:=a$NAME}", "", "the default of NONE is to be plain text or one $NAME"},
		{"${NONE:=$}", "", "the default of NONE"},
		{"${NONE:=$OTHER}", "", "$OTHER: the variable is not set"},
		{"x\n$LINES", "x\n", "2: the value of LINES has several lines"},
	} {
		wrong := mistakes{file: "f"}
		got := expand(test.text, lookup, &wrong)
		if got != test.want {
			t.Errorf("%q: %q, want %q", test.text, got, test.want)
		}
		switch {
		case test.mistake == "" && len(wrong.all) == 0:
		case len(wrong.all) != 1 || test.mistake == "" || !strings.Contains(wrong.all.Error(), test.mistake):
			t.Errorf("%q: mistakes %q, want one with %q", test.text, wrong.all, test.mistake)
		}
	}
}
