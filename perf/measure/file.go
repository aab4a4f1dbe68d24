package measure

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
)

// kinded is what the file of any report begins with. Files of before there were
// kinds have none, and are named after it (see named).
type kinded struct {
	Kind string `json:"kind"`
}

// named is how files of reports are named: DATE-KIND.json, with a letter behind the
// date to tell the runs of a day apart.
var named = regexp.MustCompile(`^\d{4}-\d\d-\d\d[a-z]?-([a-z]+)\.json$`)

// FileKind returns what a file is a report of: what is written in it, or else what
// its name says. It is empty if neither says anything.
func FileKind(path string) (string, error) {
	var k kinded
	if err := read(path, &k); err != nil {
		return "", err
	}
	if match := named.FindStringSubmatch(filepath.Base(path)); k.Kind == "" && match != nil {
		return match[1], nil
	}
	return k.Kind, nil
}

// ReadFile reads a report that was written by WriteFile, of R's kind: it would read
// any other as one of nothing. A file that does not say what it is, is believed.
func ReadFile[R Report](path string) (report R, err error) {
	kind, err := FileKind(path)
	if err != nil {
		return report, err
	}
	if want := report.Kind(); kind != "" && kind != want {
		return report, fmt.Errorf("read report %s: it is one of %s, not of %s: perf %s FILE shows it", path, kind, want, kind)
	}
	return ReadAny[R](path)
}

// ReadAny is ReadFile for somebody who has looked at FileKind.
func ReadAny[R Report](path string) (report R, err error) {
	err = read(path, &report)
	return report, err
}

func read(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read report: %w", err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read report %s: %w", path, err)
	}
	return nil
}

// WriteFile writes a report as JSON. Its kind is before all else.
func WriteFile(path string, report Report) error {
	b, err := json.MarshalIndent(report, "", "\t")
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	b = slices.Concat(fmt.Appendf(nil, "{\n\t\"kind\": %q,", report.Kind()), b[1:], []byte("\n"))
	if err := os.WriteFile(path, b, 0o644); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
