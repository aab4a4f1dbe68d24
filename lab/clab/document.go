package clab

import (
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// text is a scalar of the file and the line it is on.
type text struct {
	value string
	line  int
	wrong bool // it is something else, which has been reported
}

// document is a YAML file that is being read. It goes through nodes of the parser
// rather than having it fill in structs, since a mistake is to carry its line and
// must not hide the next one.
type document struct {
	mistakes
}

// parse returns the file's top-level value, or nil if there is none.
func (d *document) parse(data string) *yaml.Node {
	var root yaml.Node
	if err := yaml.Unmarshal([]byte(data), &root); err != nil {
		d.notYAML(err)
		return nil
	}
	if root.Kind != yaml.DocumentNode || len(root.Content) == 0 {
		d.add(0, "the file is empty")
		return nil
	}
	return root.Content[0]
}

// notYAML reports the parser's error at the line that it names.
func (d *document) notYAML(err error) {
	said := strings.TrimPrefix(err.Error(), "yaml: ")
	parts := regexp.MustCompile(`^line ([0-9]+): (.*)`).FindStringSubmatch(said)
	if parts == nil {
		d.add(0, "not YAML: %s", said)
		return
	}
	line, _ := strconv.Atoi(parts[1])
	d.add(line, "not YAML: %s", parts[2])
}

// follow returns what an alias stands for.
func follow(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

// empty tells whether a value is not there.
func empty(n *yaml.Node) bool {
	return n == nil || n.Kind == yaml.ScalarNode && n.Tag == "!!null"
}

// field is a key of a mapping and its value.
type field struct {
	key   string
	line  int // of the key
	value *yaml.Node
}

// mapping returns the fields of a mapping, in order. What names it in a mistake.
func (d *document) mapping(n *yaml.Node, what string) []field {
	if empty(n) {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		d.add(n.Line, "%s: want key: value pairs", what)
		return nil
	}
	var fields []field
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := follow(n.Content[i]), follow(n.Content[i+1])
		switch line, twice := seen[key.Value]; {
		case key.Kind != yaml.ScalarNode:
			d.add(key.Line, "%s: a key has to be plain text", what)
		case key.Tag == "!!merge":
			d.add(key.Line, "%s: merge keys are not supported: write out what %s is to have", what, what)
		case twice:
			d.add(key.Line, "%s: %s is there already, on line %d", what, key.Value, line)
		default:
			seen[key.Value] = key.Line
			fields = append(fields, field{key.Value, key.Line, value})
		}
	}
	return fields
}

// list returns the items of a list.
func (d *document) list(n *yaml.Node, what string) []*yaml.Node {
	if empty(n) {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		d.add(n.Line, "%s: want a list", what)
		return nil
	}
	items := make([]*yaml.Node, len(n.Content))
	for i, item := range n.Content {
		items[i] = follow(item)
	}
	return items
}

// scalar returns a value that is plain text, as it is written; nothing is empty.
func (d *document) scalar(n *yaml.Node, what string) text {
	switch {
	case empty(n):
		return text{line: n.Line} // also null, as containerlab has it
	case n.Kind != yaml.ScalarNode:
		d.add(n.Line, "%s: want plain text", what)
		return text{line: n.Line, wrong: true}
	}
	return text{value: n.Value, line: n.Line}
}

// texts returns the items of a list of plain texts.
func (d *document) texts(n *yaml.Node, what string) []text {
	var all []text
	for _, item := range d.list(n, what) {
		all = append(all, d.scalar(item, what))
	}
	return all
}

// textMap returns a mapping to plain texts.
func (d *document) textMap(n *yaml.Node, what string) map[string]text {
	all := make(map[string]text)
	for _, f := range d.mapping(n, what) {
		all[f.key] = d.scalar(f.value, what+"."+f.key)
	}
	return all
}

// number returns a whole number within bounds, or 0 if there is none.
func (d *document) number(n *yaml.Node, what string, low, high int) int {
	t := d.scalar(n, what)
	if t.value == "" {
		return 0
	}
	value, err := strconv.Atoi(t.value)
	if err != nil || value < low || value > high {
		d.add(t.line, "%s: want a number from %d to %d, not %s", what, low, high, t.value)
		return 0
	}
	return value
}

// command returns the words of a command.
func (d *document) command(t text, what string) []string {
	split, err := words(t.value)
	if err != nil {
		d.add(t.line, "%s: %v: %s", what, err, t.value)
	}
	return split
}
