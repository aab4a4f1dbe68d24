package connections

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"weir/lab/labtest"
	"weir/perf/measure"
)

// Through each subject, every connection is answered by a backend, and all
// backends answer; and it is the balancer that what clients send goes through,
// and, if it is to, what they are answered. How fast is not asked here.
func TestMeasure(t *testing.T) {
	labtest.NeedRoot(t)
	weir := filepath.Join(t.TempDir(), "weir")
	build := exec.Command("go", "build", "-o", weir, "weir/cmd/weir")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build weir: %v\n%s", err, out)
	}
	opt := Options{
		Setup:    measure.Setup{Repeats: 1, Window: 100 * time.Millisecond},
		Weir:     weir,
		Clients:  8,
		Rate:     200,
		Patience: time.Minute,
		Loads:    []Load{Closed},
	}
	report, err := Measure(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	for subject, reason := range report.Missing {
		if subject != IPVS || !strings.Contains(reason, "CONFIG_IP_VS") {
			t.Errorf("without %s: %s", subject, reason)
		}
	}
	if want := len(Subjects()) - len(report.Missing); len(report.Cells) != want || len(report.Summary) != want {
		t.Fatalf("%d cells, %d rows, want %d", len(report.Cells), len(report.Summary), want)
	}
	opt.Loads, opt.Subjects = []Load{Paced}, []Subject{Direct}
	paced, err := Measure(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	if len(paced.Cells) != 1 {
		t.Fatalf("%d cells", len(paced.Cells))
	}
	if c := paced.Cells[0]; c.Answered > uint64(c.Seconds*float64(opt.Rate))+uint64(opt.Clients) && c.Late == 0 {
		t.Errorf("more were opened than the rate allows: %+v", c)
	}
	report.Add(paced.Cells[0])
	for _, c := range report.Cells {
		t.Run(string(c.Subject)+" "+string(c.Load), func(t *testing.T) {
			a := c.Account
			answered := uint64(0)
			for i, n := range a.Answered { // a hash leaves nobody out of a hundred
				answered += n
				if n == 0 && a.Opened >= 100 {
					t.Errorf("backend %d was asked nothing", i)
				}
			}
			if a.Opened == 0 || answered != a.Opened || a.failed() != 0 || !slices.Equal(a.Served, a.Answered) {
				t.Errorf("not all connections were answered: %+v", a)
			}
			if c.Subject == Direct {
				return
			}
			if c.Kernel <= 0 && c.Answered > 0 {
				t.Errorf("receiving %d frames has taken no time: %+v", a.FramesIn, c)
			}
			process := slices.Contains([]Subject{WeirDSR, WeirNAT, HAProxy, Nginx}, c.Subject)
			if c.Answered > 0 && (process != (c.Process > 0) || process != (c.Memory > 0)) {
				t.Errorf("has a process: %v; it has used %v s per connection and %d bytes", process, c.Process, c.Memory)
			}
		})
	}
}

// An account that cannot be is told, and one with failures is not.
func TestAccount(t *testing.T) {
	for name, test := range map[string]struct {
		subject Subject
		change  func(*Account)
		want    string // in the error; empty for none
	}{
		"direct":                  {Direct, func(a *Account) { a.FramesIn, a.FramesOut = 20, 20 }, ""},
		"direct, few":             {Direct, func(a *Account) { *a = Account{Opened: 1, Answered: []uint64{1}, Served: []uint64{1}, FramesIn: 30} }, ""},
		"direct, by the balancer": {Direct, func(*Account) {}, "nobody was to ask"},
		"one way":                 {WeirDSR, func(a *Account) { a.FramesIn, a.FramesOut = 4000, 4000 }, ""},
		"one way, not in":         {NftDSR, func(a *Account) { a.FramesIn, a.FramesOut = 3999, 4000 }, "too few"},
		"one way, not out":        {IPVS, func(a *Account) { a.FramesIn, a.FramesOut = 4000, 3999 }, "too few"},
		"both ways":               {WeirNAT, func(*Account) {}, ""},
		"both ways, not in":       {HAProxy, func(a *Account) { a.FramesIn = 6999 }, "too few"},
		"both ways, not out":      {NftDNAT, func(a *Account) { a.FramesOut = 6999 }, "too few"},
		"by another backend":      {WeirNAT, func(a *Account) { a.Served[0]--; a.Served[2]++ }, "answers of backend 0"},
		"by nobody":               {Nginx, func(a *Account) { a.Answered[1]++; a.Opened++ }, "answers of backend 1"},
		"lost":                    {WeirNAT, func(a *Account) { a.Opened++ }, "were opened"},
		"counted twice":           {WeirNAT, func(a *Account) { a.Failed["reset"]++ }, "were opened"},
		"not known":               {WeirNAT, func(a *Account) { a.Served[1]++ }, "clients know of"},
		"answered and failed":     {WeirNAT, func(a *Account) { a.Served[1]++; a.Opened++; a.Failed["reset"]++ }, ""},
		"not answered and failed": {WeirNAT, func(a *Account) { a.Opened++; a.Failed["reset"]++ }, ""},
	} {
		a := Account{
			Opened: 1000, Answered: []uint64{300, 300, 400}, Served: []uint64{300, 300, 400}, Failed: map[string]uint64{},
			FramesIn: 7000, FramesOut: 7000,
		}
		test.change(&a)
		err := a.check(test.subject)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

func TestOptions(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"no weir":           func(o *Options) { o.Weir = "" },
		"unknown subject":   func(o *Options) { o.Subjects = []Subject{"lvs"} },
		"unknown load":      func(o *Options) { o.Loads = []Load{"open"} },
		"too many clients":  func(o *Options) { o.Clients = maxClients + 1 },
		"less than no rate": func(o *Options) { o.Rate = -1 },
		"fewer than no one": func(o *Options) { o.Clients = -1 },
		"one cpu for both":  func(o *Options) { o.CPUs = []int{0, 0} },
	} {
		t.Run(name, func(t *testing.T) {
			opt := Options{Setup: measure.Setup{CPUs: []int{0, 1}}, Weir: "weir"}
			if err := opt.complete(); err != nil || !filepath.IsAbs(opt.Weir) || len(opt.Subjects) != len(Subjects()) {
				t.Fatalf("%+v: %v", opt, err)
			}
			opt.Weir = "weir"
			change(&opt)
			if err := opt.complete(); err == nil {
				t.Errorf("accepted: %+v", opt)
			}
		})
	}
	opt := Options{Setup: measure.Setup{CPUs: []int{0, 1}}, Subjects: []Subject{Direct}}
	if err := opt.complete(); err != nil {
		t.Errorf("weir is needed without being measured: %v", err)
	}
}
