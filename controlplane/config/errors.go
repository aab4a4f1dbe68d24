package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Error is one mistake in a configuration file, or one warning about it.
type Error struct {
	File    string // as given to Load or Parse
	Line    int    // counted from 1; 0 if it is not about a line
	Path    string // of the field, "services[2].backends[0].address"; may be empty
	Problem string // what is wrong; what would be right
	Warning bool   // it is allowed
}

// Error returns the mistake as FILE:LINE: PATH: PROBLEM, on one line, and a
// warning as FILE:LINE: warning: PATH: PROBLEM, which editors know from
// compilers.
func (e Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	b.WriteString(": ")
	if e.Warning {
		b.WriteString("warning: ")
	}
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	b.WriteString(e.Problem)
	return b.String()
}

// Errors is every mistake of a file, sorted by line.
type Errors []Error

// Error returns all mistakes, one per line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Warnings is what is allowed in a file but likely not meant, sorted by line.
type Warnings []Error

// positions is where the fields of a file stand. The zero value knows none.
type positions struct {
	file  string
	lines map[string]int // by field path; "" is the whole document
}

// has says whether the file has the field at path, right or wrong.
func (p positions) has(path string) bool {
	_, ok := p.lines[path]
	return ok
}

// line returns the line of the field at path, or of what it would be in.
func (p positions) line(path string) int {
	for {
		if line, ok := p.lines[path]; ok || path == "" {
			return line
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
}

// report collects what is found in a file, in any order.
type report struct {
	pos      positions
	errors   Errors
	warnings Warnings
	broken   map[string]bool // paths of fields that are there, but wrong
}

// errorf reports a mistake in the field at path.
func (r *report) errorf(path, format string, args ...any) {
	r.errorAt(r.pos.line(path), path, format, args...)
	r.spoil(path)
}

// errorAt reports a mistake that stands in line and leaves the field at path as
// good as it is.
func (r *report) errorAt(line int, path, format string, args ...any) {
	r.errors = append(r.errors, Error{r.pos.file, line, path, fmt.Sprintf(format, args...), false})
}

// spoil has later checks not ask for the field at path.
func (r *report) spoil(path string) {
	if r.broken == nil {
		r.broken = make(map[string]bool)
	}
	r.broken[path] = true
}

// brokenIn says whether the field at path is there, but wrong, or anything in it.
func (r *report) brokenIn(path string) bool {
	for p := range r.broken {
		if rest, ok := strings.CutPrefix(p, path); ok && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			return true
		}
	}
	return false
}

// absent reports that there is nothing at parent.key, unless that is so because
// it, or all of parent, could not be decoded.
func (r *report) absent(parent, key, want string) {
	path := join(parent, key)
	switch {
	case r.broken[path] || r.broken[parent]:
	case r.pos.has(path):
		r.errorf(path, "is empty; want %s", want)
	default:
		r.errorf(path, "is missing; want %s", want)
	}
}

func (r *report) warnf(path, format string, args ...any) {
	r.warnings = append(r.warnings, Error{r.pos.file, r.pos.line(path), path, fmt.Sprintf(format, args...), true})
}

// sort sorts by line, and keeps the order of what is on the same one.
func (r *report) sort() {
	byLine := func(a, b Error) int { return cmp.Compare(a.Line, b.Line) }
	slices.SortStableFunc(r.errors, byLine)
	slices.SortStableFunc(r.warnings, byLine)
}
