package measure

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"
)

// played is the report of a measurement that only counts.
type played struct {
	Count   int      `json:"count"`
	Missing []string `json:"missing"`
}

func (p played) Kind() string { return "played" }

func (p played) Tables() []Table {
	return []Table{{Title: "Counted:", Lines: [][]string{{"all"}, {fmt.Sprint(p.Count)}}}}
}

func (p played) Reasons() []string { return p.Missing }

// act runs the command of a measurement that has this outcome.
func act(t *testing.T, r played, outcome error, args ...string) (out string, ran bool, err error) {
	t.Helper()
	var b bytes.Buffer
	app := &cli.App{
		Name: "played", Writer: &b, ErrWriter: t.Output(), ExitErrHandler: func(*cli.Context, error) {},
		Flags: append(SetupFlags(5, time.Second, "of both"), ReportFlags()...),
		Action: func(c *cli.Context) error {
			return Act(c, func() (played, int, error) {
				ran = true
				return r, r.Count, outcome
			})
		},
	}
	err = app.Run(append([]string{"played"}, args...))
	return b.String(), ran, err
}

// A run is shown and written, also one that has failed halfway; a run of nothing is
// an error, with the reasons if there are any, and is neither.
func TestActMeasures(t *testing.T) {
	broken := errors.New("broken")
	for _, test := range []struct {
		name    string
		report  played
		outcome error
		args    []string
		out     string
		written bool
		err     []string
	}{
		{name: "all", report: played{Count: 3}, out: "Counted:\nall\n3\n", written: true},
		{name: "for a page", report: played{Count: 3}, args: []string{"--markdown"}, out: "Counted:\n\n| all |\n| --- |\n| 3 |\n", written: true},
		{name: "half", report: played{Count: 1}, outcome: broken, out: "Counted:\nall\n1\n", written: true, err: []string{"broken"}},
		{name: "none, failed", outcome: broken, err: []string{"broken"}},
		{name: "none", err: []string{"nothing was measured"}},
		{name: "none, and why", report: played{Missing: []string{"ipvs: not here", "tap: gone"}}, err: []string{"nothing was measured: ipvs: not here; tap: gone"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "2026-11-27-played.json")
			out, ran, err := act(t, test.report, test.outcome, append(test.args, "--write", path)...)
			if out != test.out || !ran || (err == nil) != (test.err == nil) {
				t.Errorf("ran %v, error %v, shown %q", ran, err, out)
			}
			for _, want := range test.err {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v, want %q", err, want)
				}
			}
			r, err := ReadFile[played](path)
			if test.written && (err != nil || r.Count != test.report.Count) || !test.written && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("written %+v, %v", r, err)
			}
		})
	}
}

// With a file it only shows that, and refuses what it would have to ignore.
func TestActShows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "2026-11-27-played.json")
	if err := WriteFile(path, played{Count: 7}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		out  string
		err  string
	}{
		{args: []string{path}, out: "Counted:\nall\n7\n"},
		{args: []string{"--markdown", path}, out: "Counted:\n\n| all |\n| --- |\n| 7 |\n"},
		{args: []string{path, "--markdown"}, err: "--markdown is behind the file: options go before it"},
		{args: []string{path, path}, err: "one file"},
		{args: []string{"--write", "x.json", path}, err: "--write is for measuring"},
		{args: []string{"--repeats=2", path}, err: "--repeats is for measuring"},
		{args: []string{"--cpus=0", "--cpus=1", path}, err: "--cpus is for measuring"},
		{args: []string{path + "-not"}, err: "no such file"},
	} {
		out, ran, err := act(t, played{Count: 1}, nil, test.args...)
		if out != test.out || ran || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%q: ran %v, shown %q, error %v, want %q", test.args, ran, out, err, test.err)
		}
	}
}

// What nothing can be measured with is refused before anything is.
func TestFlags(t *testing.T) {
	for _, arg := range []string{"--repeats=0", "--repeats=-1", "--window=0s", "--window=-1s"} {
		if _, ran, err := act(t, played{Count: 1}, nil, arg); err == nil || ran || !strings.Contains(err.Error(), arg[:8]) {
			t.Errorf("%s: ran %v, error %v", arg, ran, err)
		}
	}
}
