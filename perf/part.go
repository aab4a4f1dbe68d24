package perf

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// part says what of a report's tables to show: all of what is not said.
type part struct {
	rows    [][]string // a line has to have one of each
	columns []string
	tables  []int // from 1
}

func (p *part) set(key, value string) error {
	values := strings.Split(value, ",")
	switch key {
	case "rows":
		p.rows = append(p.rows, values)
	case "columns":
		p.columns = values
	case "tables":
		for _, v := range values {
			n, err := strconv.Atoi(v)
			if err != nil || n < 1 {
				return fmt.Errorf("%q is no number of a table: they count from 1", v)
			}
			p.tables = append(p.tables, n)
		}
	default:
		return fmt.Errorf("no option %q: there are rows, columns and tables", key)
	}
	return nil
}

// of returns the part of a text with tables, as package measure writes them. Texts
// above a table that is not shown go with it, but for the first, which says where
// all of it was measured. It fails if nothing is left, or not all columns are.
func (p *part) of(text string) (string, error) {
	if len(p.rows)+len(p.columns)+len(p.tables) == 0 {
		return text, nil
	}
	var out []string
	var above []string // texts that the next table decides on
	tables, shown := 0, 0
	for n, block := range strings.Split(strings.Trim(text, "\n"), "\n\n") {
		block = strings.Trim(block, "\n")
		switch {
		case n == 0:
			out = append(out, block)
			continue
		case !strings.HasPrefix(block, "|"):
			above = append(above, block)
			continue
		}
		tables++
		if len(p.tables) == 0 || slices.Contains(p.tables, tables) {
			if table := p.table(block); table != "" {
				out = append(append(out, above...), table)
				shown++
			}
		}
		above = nil
	}
	if shown == 0 || shown < len(p.tables) {
		return "", errors.New("no such rows, columns or tables")
	}
	return strings.Join(out, "\n\n") + "\n", nil
}

// table returns the part of a table; nothing if it does not have all columns, or
// no line is left.
func (p *part) table(block string) string {
	lines := strings.Split(block, "\n")
	head := cells(lines[0])
	var columns []int
	for _, name := range p.columns {
		i := slices.Index(head, name)
		if i < 0 {
			return ""
		}
		columns = append(columns, i)
	}
	var b strings.Builder
	kept := 0
	for n, line := range lines {
		all := cells(line)
		if n > 1 {
			if !p.has(all) {
				continue
			}
			kept++
		}
		if len(columns) > 0 {
			some := make([]string, len(columns))
			for i, c := range columns {
				some[i] = all[c]
			}
			all = some
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(all, " | "))
	}
	if kept == 0 {
		return ""
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// has tells whether a line is to be shown.
func (p *part) has(line []string) bool {
	for _, words := range p.rows {
		if !slices.ContainsFunc(words, func(w string) bool { return slices.Contains(line, w) }) {
			return false
		}
	}
	return true
}

// cells splits a line of a table.
func cells(line string) []string {
	return strings.Split(strings.TrimSuffix(strings.TrimPrefix(line, "| "), " |"), " | ")
}
