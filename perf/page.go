package perf

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"weir/perf/measure"
)

// On a page, what is between two lines such as these is made from the file named,
// whose path is relative to the page:
//
//	<!-- perf wire results/2026-11-27-wire.json -->
//	<!-- /perf -->
//
// The first word is the measurement: it has to be that in the file's name. It is
// "summary" for what is in several files, side by side (see summary), and "plot"
// for the chart of a file, which is beside it.
//
// After the file there may be what to show of a table that is too long. Only
// rows=A,B shows the lines that have one of these words in one of their cells; with
// several, a line has to have one of each. Only columns=A,B shows these columns, and
// only tables=1,3 these tables of the report, counted from 1. Names with a space are
// quoted: columns="subject,worker core ns/packet".
const (
	beginMark = "<!-- perf "
	markEnd   = " -->"
	endMark   = "<!-- /perf -->"
)

func pageCommand() *cli.Command {
	return &cli.Command{
		Name:      "page",
		Usage:     "write tables into pages, from the results that they name",
		ArgsUsage: "PAGE.md|REPORT.json...",
		Description: "In a page, what is between <!-- perf wire results/DATE-wire.json --> and <!-- /perf --> is made\n" +
			"from that file, whose path is relative to the page. There are also: perf plot FILE, the chart; perf\n" +
			"summary FILE..., side by side; and, to show a part of a table, rows=A,B columns=A,B tables=1,2.\n" +
			"The chart of a REPORT.json is drawn again.",
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return errors.New("name pages, or reports")
			}
			for _, path := range c.Args().Slice() {
				if filepath.Ext(path) == ".json" {
					if chart, err := drawResult(path); err != nil {
						return err
					} else if chart == "" {
						return fmt.Errorf("draw %s: there are no charts of this kind", path)
					}
					continue
				}
				if err := rewritePage(path); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// rewritePage fills a page's file in, if there is anything new.
func rewritePage(path string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read page: %w", err)
	}
	page, err := fillPage(path, old)
	if err != nil || bytes.Equal(page, old) {
		return err
	}
	if err := os.WriteFile(path, page, 0o644); err != nil {
		return fmt.Errorf("write page: %w", err)
	}
	return nil
}

// fillPage returns the page at path with everything between marks made anew.
func fillPage(path string, page []byte) ([]byte, error) {
	var out bytes.Buffer
	open := 0 // line of the mark that has no end yet
	number := 0
	for line := range strings.Lines(string(page)) {
		number++
		text := strings.TrimRight(line, "\r\n")
		switch {
		case text == endMark:
			if open == 0 {
				return nil, fmt.Errorf("%s:%d: an end without a beginning", path, number)
			}
			open = 0
		case strings.HasPrefix(text, beginMark):
			if open > 0 {
				return nil, fmt.Errorf("%s:%d: the one in line %d has no end: %s", path, number, open, endMark)
			}
			open = number
			out.WriteString(line)
			content, err := contentOf(text, filepath.Dir(path))
			if err != nil {
				return nil, fmt.Errorf("%s:%d: %w", path, number, err)
			}
			fmt.Fprintf(&out, "\n%s\n\n", strings.Trim(content, "\n"))
			continue
		case open > 0:
			continue
		}
		out.WriteString(line)
	}
	if open > 0 {
		return nil, fmt.Errorf("%s:%d: no end: %s", path, open, endMark)
	}
	return out.Bytes(), nil
}

// contentOf returns what a mark stands for, on a page in dir.
func contentOf(mark, dir string) (string, error) {
	text, ok := strings.CutSuffix(strings.TrimPrefix(mark, beginMark), markEnd)
	if !ok {
		return "", fmt.Errorf("%s does not end in %q", mark, markEnd)
	}
	words, err := splitWords(text)
	if err != nil {
		return "", err
	}
	var names []string // of files, as they are on the page
	var part part
	for _, word := range words[1:] {
		if key, value, ok := strings.Cut(word, "="); ok {
			if err := part.set(key, value); err != nil {
				return "", err
			}
			continue
		}
		names = append(names, word)
	}
	if len(names) == 0 {
		return "", fmt.Errorf("%s names no file", mark)
	}
	if words[0] != "summary" && len(names) > 1 {
		return "", fmt.Errorf("%s names %d files: only a summary is made of several", mark, len(names))
	}
	var reports []measure.Report
	for _, name := range names {
		r, err := readResult(filepath.Join(dir, name))
		if err != nil {
			return "", err
		}
		reports = append(reports, r)
	}
	var made strings.Builder
	switch words[0] {
	case "summary":
		s := summarize(reports)
		if s.empty() {
			return "", fmt.Errorf("%s: there is nothing to compare in %s", mark, strings.Join(names, ", "))
		}
		err = measure.WriteMarkdown(&made, s.tables())
	case "plot":
		if _, ok := reports[0].(plotter); !ok {
			return "", fmt.Errorf("%s: there are no charts of this kind", mark)
		}
		_, err = fmt.Fprintf(&made, "![chart of %s](%s)", filepath.Base(names[0]), chartPath(names[0]))
		return made.String(), err
	case kindName(names[0]):
		err = measure.WriteMarkdown(&made, reports[0].Tables())
	default:
		return "", fmt.Errorf("%s: %s is no result of %s", mark, names[0], words[0])
	}
	if err != nil {
		return "", err
	}
	content, err := part.of(made.String())
	if err != nil {
		return "", fmt.Errorf("%s: %w", mark, err)
	}
	return "From " + links(names) + ". " + content, nil
}

func links(names []string) string {
	var all []string
	for _, name := range names {
		all = append(all, fmt.Sprintf("[%s](%s)", filepath.Base(name), name))
	}
	return strings.Join(all, ", ")
}

// splitWords splits a mark at spaces, but for those in quotes, which are taken
// off.
func splitWords(text string) (words []string, err error) {
	quoted, begun := false, false
	var word strings.Builder
	flush := func() {
		if begun {
			words = append(words, word.String())
		}
		word.Reset()
		begun = false
	}
	for _, c := range text {
		switch {
		case c == '"':
			quoted, begun = !quoted, true
		case c == ' ' && !quoted:
			flush()
		default:
			word.WriteRune(c)
			begun = true
		}
	}
	flush()
	if quoted {
		return nil, fmt.Errorf("%s: a quote has no end", text)
	}
	if len(words) == 0 {
		return nil, errors.New("a mark without a measurement")
	}
	return words, nil
}
