package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFile is the largest file that is read, in bytes.
const maxFile = 16 << 20

// Load reads and parses the file at path. See Parse. If the file cannot be
// read, the error wraps that of the operating system.
func Load(path string, host *Host) (*Config, Warnings, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("open configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, data, host)
}

// Parse parses the text of a configuration file; name is what errors call it.
// With a host, what does not fit that box is a mistake, too. The error is of
// type Errors and has every mistake of the file. Warnings are returned in
// either case.
func Parse(name string, data []byte, host *Host) (*Config, Warnings, error) {
	d := &decoder{report: report{pos: positions{file: name, lines: map[string]int{"": 1}}}}
	c := defaults()
	if root := d.document(data); root != nil {
		if n, ok := d.enter(root, "", root.Line); ok {
			d.config(n, c)
		}
		c.pos = d.pos
		c.derive(&d.report)
		if d.values <= maxValues {
			validate(c, &d.report)
			if host != nil {
				validateOn(c, host, &d.report)
			}
		}
	}
	d.sort()
	if len(d.errors) > 0 {
		return nil, d.warnings, d.errors
	}
	return c, d.warnings, nil
}

// document returns the root of the one YAML document in data, or nil after
// reporting why there is none.
func (d *decoder) document(data []byte) *yaml.Node {
	if len(data) > maxFile {
		d.errorAt(0, "", "is larger than %d MiB; that is no configuration of weir", maxFile>>20)
		return nil
	}
	in := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	switch err := in.Decode(&doc); {
	case errors.Is(err, io.EOF):
		d.errorAt(1, "", "is empty; weir needs at least interfaces and services")
		return nil
	case err != nil:
		d.syntax(data, err)
		return nil
	}
	switch err := in.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		d.syntax(data, err)
	default:
		d.errorAt(second.Line, "", "a second YAML document begins; a configuration is one, remove the --- between them")
	}
	return doc.Content[0]
}

// syntax reports what the YAML library could not read. The library gives a line
// in the text of the error only, for some errors none at all, and often that of
// the first line of the block that the mistake is in; so that is what is said.
func (d *decoder) syntax(data []byte, err error) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	var line int
	var anchor string
	if n, _ := fmt.Sscanf(text, "line %d:", &line); n == 1 {
		_, text, _ = strings.Cut(text, ": ")
		if strings.HasPrefix(text, "did not find expected") {
			// The library's parser counts from 0, its scanner from 1.
			line = min(line+1, 1+bytes.Count(data, []byte("\n")))
		}
	} else if n, _ := fmt.Sscanf(text, "unknown anchor '%s", &anchor); n == 1 {
		anchor = "*" + strings.TrimSuffix(anchor, "'")
		before, _, _ := bytes.Cut(data, []byte(anchor))
		d.errorAt(1+bytes.Count(before, []byte("\n")), "", "not YAML: there is no anchor for %s", quote(anchor))
		return
	}
	if at := tabbed(data, line, text); at > 0 {
		d.errorAt(at, "", "not YAML: indented with a tab; want spaces")
		return
	}
	d.errorAt(line, "", "not YAML, in this line or the block that begins here: %s", strings.Join(strings.Fields(text), " "))
}

// tabbed returns the line whose indentation has the tab that the YAML library
// stumbled over, or 0 if it was something else. Of a "tab character" it tells
// the block that this is in; what "cannot start any token" is in the line that
// it tells, which for the first line is none.
func tabbed(data []byte, line int, text string) int {
	exact := strings.Contains(text, "cannot start any token")
	if !exact && !strings.Contains(text, "tab character") {
		return 0
	}
	line = max(line, 1)
	for i, l := range bytes.Split(data, []byte("\n")) {
		indent := l[:len(l)-len(bytes.TrimLeft(l, " \t-"))]
		if i+1 >= line && bytes.ContainsRune(indent, '\t') {
			return i + 1
		}
		if exact && i+1 == line {
			return 0
		}
	}
	return 0
}
