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
	report.add(paced.Cells[0])
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
			// At the least there are SYN, ACK, the byte and FIN with an ACK one way,
			// and SYN with ACK, the byte and FIN the other.
			const there, back = 4, 3
			in, out := uint64(there), uint64(there+back)
			switch {
			case c.Subject == Direct:
				if a.FramesIn+a.FramesOut >= a.Opened {
					t.Errorf("%d and %d frames went through a balancer that nobody was to ask: %+v", a.FramesIn, a.FramesOut, a)
				}
				return
			case c.Subject.direct():
				out = there
			default:
				in = there + back
			}
			if a.FramesIn < in*a.Opened || a.FramesOut < out*a.Opened {
				t.Errorf("%d connections went not, or not all the way, through the balancer: %+v", a.Opened, a)
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
