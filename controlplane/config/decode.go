package config

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxValues bounds the values of one file, counted where they are used: a value
// behind an alias counts each time. A file of 16 MiB cannot become gigabytes.
const maxValues = 1 << 20

// node is a value of the file and the path of the field it is used for. It is
// never an alias, but what the alias stands for.
type node struct {
	*yaml.Node
	path string
}

// fields is what a mapping may have: a decoder for the value of each key.
type fields map[string]func(node)

// decoder walks the YAML tree. A value that is wrong is reported and left at
// its default, or at its zero value if it is an element of a list or one of a
// few words; validation passes over the latter without a second report.
type decoder struct {
	report
	values int // seen so far
}

// enter records that value is used for the field at path, which stands in line,
// and says whether there is something to decode.
func (d *decoder) enter(value *yaml.Node, path string, line int) (node, bool) {
	d.values++
	if d.values > maxValues {
		if d.values == maxValues+1 {
			d.errorAt(line, path, "is one value too many; a file has at most %d, aliases expanded", maxValues)
		}
		return node{}, false
	}
	d.pos.lines[path] = line
	if value.Kind == yaml.AliasNode {
		value = value.Alias
	}
	switch {
	case value.Style&yaml.TaggedStyle != 0:
		d.errorf(path, "has the YAML tag %s; tags are not supported, remove it", quote(value.Tag))
		return node{}, false
	case value.Kind == yaml.ScalarNode && value.ShortTag() == "!!null":
		d.errorf(path, "has no value; give it one, or remove it")
		return node{}, false
	}
	return node{value, path}, true
}

// mapping decodes each value of a mapping by the function for its key.
func (d *decoder) mapping(n node, known fields) {
	if n.Kind != yaml.MappingNode {
		want := "KEY: VALUE pairs with the keys " + keys(known)
		if len(known) == 0 {
			want = "{}, as nothing can be said about it"
		}
		d.errorf(n.path, "is %s; want %s", kind(n), want)
		return
	}
	d.pairs(n, func() string { return keys(known) }, func(key *yaml.Node, path string) func(node) {
		if decode, ok := known[key.Value]; ok {
			return decode
		}
		near := nearest(key.Value, known)
		if near != "" {
			d.spoil(join(n.path, near))
		}
		d.pos.lines[path] = key.Line
		d.errorf(path, "%s", unknownKey(key, near, known))
		return nil
	})
}

// dict decodes a mapping whose keys are the file's own choice. It passes over
// the keys that parse has something against.
func (d *decoder) dict(n node, want string, parse func(string) (string, string), decode func(string, node)) {
	if n.Kind != yaml.MappingNode {
		d.errorf(n.path, "is %s; want %s", kind(n), want)
		return
	}
	d.pairs(n, func() string { return want }, func(key *yaml.Node, path string) func(node) {
		k, problem := parse(key.Value)
		if key.ShortTag() == "!!merge" {
			problem = unknownKey(key, "", nil)
		}
		if problem != "" {
			d.pos.lines[path] = key.Line
			d.errorf(path, "%s", problem)
			return nil
		}
		return func(n node) { decode(k, n) }
	})
}

// pairs decodes each value of a mapping by what choose returns for its key.
func (d *decoder) pairs(n node, want func() string, choose func(key *yaml.Node, path string) func(node)) {
	first := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			d.errorAt(key.Line, n.path, "has a key that is not plain text; the keys here are %s", want())
			continue
		}
		path := join(n.path, key.Value)
		if line, ok := first[key.Value]; ok {
			d.errorAt(key.Line, path, "is here twice; the first is in line %d, keep one", line)
			continue
		}
		first[key.Value] = key.Line
		decode := choose(key, path)
		if decode == nil {
			continue
		}
		if child, ok := d.enter(value, path, key.Line); ok {
			decode(child)
		}
	}
}

// list decodes a list into to. Every element keeps its index, also next to
// wrong ones, so that paths made later are right.
func list[T any](d *decoder, n node, to *[]T, decode func(node, *T)) {
	if n.Kind != yaml.SequenceNode {
		d.errorf(n.path, "is %s; want a list: [...], or one line with a dash for each", kind(n))
		return
	}
	*to = make([]T, len(n.Content))
	for i, value := range n.Content {
		if child, ok := d.enter(value, fmt.Sprintf("%s[%d]", n.path, i), value.Line); ok {
			decode(child, &(*to)[i])
		}
	}
}

// scalar returns the text of a single value, quoted or not.
func (d *decoder) scalar(n node, want string) (string, bool) {
	if n.Kind != yaml.ScalarNode {
		d.errorf(n.path, "is %s; want %s", kind(n), want)
		return "", false
	}
	return n.Value, true
}

// value decodes a single value by parse, which returns what is wrong with the
// text, or nothing.
func value[T any](d *decoder, n node, to *T, want string, parse func(string) (T, string)) {
	text, ok := d.scalar(n, want)
	if !ok {
		return
	}
	v, problem := parse(text)
	if problem != "" {
		d.errorf(n.path, "%s", problem)
		return
	}
	*to = v
}

// word decodes one of a few words. A wrong one leaves to empty.
func word[T ~string](d *decoder, n node, to *T, words ...T) {
	*to = ""
	want := "one of " + joinWords(words)
	text, ok := d.scalar(n, want)
	if !ok {
		return
	}
	if !slices.Contains(words, T(text)) {
		d.errorf(n.path, "%s is none of its values; want %s", quote(text), want)
		return
	}
	*to = T(text)
}

// number decodes a whole number from lo to hi.
func number[T ~int | ~uint16 | ~uint32](d *decoder, n node, to *T, lo, hi T) {
	want := fmt.Sprintf("a whole number from %d to %d", lo, hi)
	text, ok := d.scalar(n, want)
	if !ok {
		return
	}
	if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		d.errorf(n.path, "is text; want %s, without quotes", want)
		return
	}
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil || strconv.FormatInt(v, 10) != text || v < int64(lo) || v > int64(hi) {
		d.errorf(n.path, "is %s; want %s", quote(text), want)
		return
	}
	*to = T(v)
}

// optional is number for what is nil if the file does not say it.
func optional(d *decoder, n node, to **uint32) {
	v := new(uint32)
	*to = v
	number(d, n, v, 0, math.MaxUint32)
}

// words decodes a list of a few words.
func words[T ~string](d *decoder, n node, to *[]T, words ...T) {
	list(d, n, to, func(n node, w *T) { word(d, n, w, words...) })
}

// flag decodes true or false.
func (d *decoder) flag(n node, to *bool) {
	text, ok := d.scalar(n, "true or false")
	if ok && text != "true" && text != "false" {
		d.errorf(n.path, "is %s; want true or false", quote(text))
		return
	}
	*to = text == "true"
}

// kind names what a value is, for errors.
func kind(n node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	return "the single value " + quote(n.Value)
}

// unknownKey says what is wrong with a key that a mapping has no field for; near
// is the known key that it may be meant to be.
func unknownKey(key *yaml.Node, near string, known fields) string {
	if key.ShortTag() == "!!merge" {
		return "merge keys are not supported; write the keys out, or use an alias for a whole value"
	}
	switch {
	case near != "":
		return fmt.Sprintf("unknown key; did you mean %s?", near)
	case len(known) == 0:
		return "unknown key; there are none here, want {}"
	}
	return fmt.Sprintf("unknown key; the keys here are %s", keys(known))
}

// nearest returns the known key that takes the fewest edits to get to, or
// nothing if all are too far away to be meant.
func nearest(key string, known fields) string {
	best, least := "", 3
	for _, k := range slices.Sorted(maps.Keys(known)) {
		// A third of a word may be wrong; "mode" is not meant by "code_x".
		if n := edits(key, k, least); n < least && n*3 <= max(len(k), 3) {
			best, least = k, n
		}
	}
	return best
}

// edits returns how many letters must be inserted, removed or changed, or
// swapped with their neighbour, to get from a to b; any number >= limit if it
// is that many (optimal string alignment distance).
func edits(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			rows[i][j] = min(change, rows[i-1][j]+1, rows[i][j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}

// join appends a key to a path; one that is not a plain word is quoted.
func join(path, key string) string {
	plain := func(r rune) bool {
		return r == '_' || r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
	}
	if key == "" || len(key) > 60 || strings.TrimLeftFunc(key, plain) != "" {
		key = quote(key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// quote quotes text of the file for an error, shortened if it is long.
func quote(text string) string {
	if len(text) > 60 {
		text = text[:60] + "..."
	}
	return strconv.Quote(text)
}

func keys(known fields) string { return joinWords(slices.Sorted(maps.Keys(known))) }

func joinWords[T ~string](words []T) string {
	parts := make([]string, len(words))
	for i, w := range words {
		parts[i] = string(w)
	}
	return strings.Join(parts, ", ")
}
