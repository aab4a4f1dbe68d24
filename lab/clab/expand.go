package clab

import (
	"strings"
	"unicode"
)

// Lookup returns the value of an environment variable, as os.LookupEnv does.
type Lookup func(name string) (value string, set bool)

// expand puts values in the place of variables, in all of a file's text, before
// anything else reads it, as containerlab does with a8m/envsubst 1.4.2:
//
//	$NAME ${NAME}                the value
//	${NAME:-text} ${NAME:=text}  the value, or text if it is empty or not set
//	${NAME-text} ${NAME=text}    the value, or text if it is not set
//	${NAME:+text} ${NAME+text}   text if it is set, or nothing
//	$$                           a dollar sign
//
// Where no name follows, a dollar sign is one. A text may be $NAME itself. What
// containerlab would silently take for nothing, a variable without value or
// text, is a mistake here, unless it is in a comment. So is what would change the
// lines that other mistakes are reported for.
func expand(text string, lookup Lookup, wrong *mistakes) string {
	var out strings.Builder
	for number, line := range strings.SplitAfter(text, "\n") {
		l := lineOf{rest: line, number: number + 1, lookup: lookup, wrong: wrong}
		l.comment = strings.HasPrefix(strings.TrimSpace(line), "#")
		l.expand(&out)
	}
	return out.String()
}

// lineOf is a line that is being expanded.
type lineOf struct {
	rest    string
	number  int
	comment bool // nothing but
	lookup  Lookup
	wrong   *mistakes
}

func (l *lineOf) expand(out *strings.Builder) {
	for {
		before, after, found := strings.Cut(l.rest, "$")
		out.WriteString(before)
		if !found {
			return
		}
		l.rest = after
		switch name := leadingName(after); {
		case strings.HasPrefix(after, "$"):
			out.WriteByte('$')
			l.rest = after[1:]
		case strings.HasPrefix(after, "{"):
			out.WriteString(l.braced())
		case name == "" || name == "_":
			out.WriteByte('$')
		default:
			l.rest = after[len(name):]
			out.WriteString(l.value(name, "$"+name))
		}
	}
}

// operators are what may follow a name in braces, longest first.
var operators = []string{":-", ":=", ":+", "-", "=", "+"}

// braced takes an expression in braces from the line and returns its value.
func (l *lineOf) braced() string {
	inside, after, found := strings.Cut(l.rest[1:], "}")
	if !found {
		inside = strings.TrimRight(inside, "\r\n")
		l.mistake("${%s: no closing brace on this line", inside)
		l.rest = l.rest[1+len(inside):]
		return ""
	}
	l.rest = after
	name := leadingName(inside)
	if name == "" || name == "_" {
		l.mistake("${%s}: want the name of a variable after ${", inside)
		return ""
	}
	tail := inside[len(name):]
	if tail == "" {
		return l.value(name, "${"+name+"}")
	}
	for _, operator := range operators {
		text, ok := strings.CutPrefix(tail, operator)
		if !ok {
			continue
		}
		value, set := l.lookup(name)
		switch {
		case operator == ":+" || operator == "+":
			if !set {
				return ""
			}
		case value != "" || set && len(operator) == 1:
			return l.oneLine(name, value)
		}
		return l.text(name, text)
	}
	l.mistake("${%s}: want :=, :- or :+ after %s", inside, name)
	return ""
}

// text returns what stands in the place of a variable.
func (l *lineOf) text(name, text string) string {
	if !strings.Contains(text, "$") {
		return text
	}
	if other := leadingName(text[1:]); text[0] == '$' && other != "" && len(other) == len(text)-1 {
		return l.value(other, text)
	}
	l.mistake("${%s...}: the default of %s is to be plain text or one $NAME", name, name)
	return ""
}

// value returns a variable's value, which it has to have.
func (l *lineOf) value(name, as string) string {
	value, set := l.lookup(name)
	if !set && !l.comment {
		l.mistake("%s: the variable is not set: set it, write ${%s:=default}, or $%s for a dollar sign", as, name, as)
	}
	return l.oneLine(name, value)
}

func (l *lineOf) oneLine(name, value string) string {
	if strings.ContainsAny(value, "\n\r") {
		l.mistake("the value of %s has several lines", name)
		return ""
	}
	return value
}

func (l *lineOf) mistake(format string, args ...any) { l.wrong.add(l.number, format, args...) }

// leadingName returns what of a text's beginning is a variable's name.
func leadingName(text string) string {
	for i, r := range text {
		if r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return text[:i]
		}
	}
	return text
}
