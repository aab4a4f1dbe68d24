package router

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"weir/lab/netlab"
)

// Where Debian has FRR.
const (
	zebraPath = "/usr/lib/frr/zebra"
	bgpdPath  = "/usr/lib/frr/bgpd"
	vtyshPath = "/usr/bin/vtysh"
	frrUser   = "frr"
	vtyGroup  = "frrvty"
)

// FRRConfig says how an FRR is started.
type FRRConfig struct {
	// Dir is where the directory with its state is made; empty: the system's
	// for temporary files. The user frr has to be able to pass it.
	Dir string

	// Text is the configuration, as in frr.conf. Blocks of interfaces, and commands
	// that begin with ip and ipv6 but for filters, are zebra's, all else is bgpd's.
	Text string
}

// FRR is zebra and bgpd in a host, without their supervisor. Its methods are
// not to be called by two goroutines at once, but for Query, JSON and Log.
type FRR struct {
	host  *netlab.Host
	dir   string
	uid   uint32
	gid   uint32
	vty   uint32 // the group that may use the sockets
	zebra *netlab.Process
	bgpd  *netlab.Process // nil while it is not running
	past  []*netlab.Process
}

// StartFRR starts zebra and then bgpd, and waits until both answer. A line of
// the configuration that neither of them knows is an error.
func StartFRR(ctx context.Context, host *netlab.Host, config FRRConfig) (*FRR, error) {
	f := &FRR{host: host}
	if err := f.start(ctx, config); err != nil {
		return nil, errors.Join(fmt.Errorf("start frr on %s: %w", host.Name(), err), f.Stop())
	}
	return f, nil
}

func (f *FRR) start(ctx context.Context, config FRRConfig) (err error) {
	if err := errors.Join(program(zebraPath), program(bgpdPath), program(vtyshPath)); err != nil {
		return err
	}
	if err := f.identify(); err != nil {
		return err
	}
	if f.dir, err = os.MkdirTemp(config.Dir, "weir-frr-"); err != nil {
		return err
	}
	zebra, bgpd, err := divide(config.Text)
	if err != nil {
		return err
	}
	for name, text := range map[string]string{"zebra.conf": zebra, "bgpd.conf": bgpd, "vtysh.conf": ""} {
		path := filepath.Join(f.dir, name)
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chown(path, int(f.uid), int(f.gid))); err != nil {
			return err
		}
	}
	if err := errors.Join(os.Chown(f.dir, int(f.uid), int(f.gid)), os.Chmod(f.dir, 0o755)); err != nil {
		return err
	}
	if f.zebra, err = f.daemon(ctx, zebraPath); err != nil {
		return err
	}
	return f.StartBGP(ctx)
}

// identify finds the user and the groups that Debian's package makes.
func (f *FRR) identify() error {
	u, err := user.Lookup(frrUser)
	if err != nil {
		return fmt.Errorf("%w; %w", err, ErrMissing)
	}
	g, err := user.LookupGroup(vtyGroup)
	if err != nil {
		return fmt.Errorf("%w; %w", err, ErrMissing)
	}
	for text, id := range map[string]*uint32{u.Uid: &f.uid, u.Gid: &f.gid, g.Gid: &f.vty} {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return fmt.Errorf("id %q of user frr: %w", text, err)
		}
		*id = uint32(n)
	}
	return nil
}

// divide gives the blocks of a configuration to the daemon that knows them.
func divide(text string) (zebra, bgpd string, err error) {
	toZebra := false
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) > 0 && line[0] != ' ' && line[0] != '\t' {
			switch words[0] {
			case "interface", "ip", "ipv6":
				toZebra = len(words) < 2 || !slices.Contains([]string{"prefix-list", "as-path", "community-list"}, words[1])
			case "watchfrr", "service":
				return "", "", fmt.Errorf("configuration line %q: there is neither watchfrr nor vtysh's integrated configuration", strings.TrimSpace(line))
			default:
				toZebra = false
			}
		}
		if toZebra {
			zebra += line
		} else {
			bgpd += line
		}
	}
	return zebra, bgpd, nil
}

// capabilities are those that the daemons ask for. They are started as user frr
// with these instead of as root: a process that changes its user loses the
// signal that ends it with the lab's own process (prctl(2), PR_SET_PDEATHSIG).
var capabilities = []uintptr{unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_SYS_ADMIN}

// daemon starts a daemon and waits until it answers.
func (f *FRR) daemon(ctx context.Context, path string) (*netlab.Process, error) {
	name := filepath.Base(path)
	cmd := exec.Command(path, "--vty_socket", f.dir, "-z", filepath.Join(f.dir, "zserv.api"),
		"-f", filepath.Join(f.dir, name+".conf"), "-i", filepath.Join(f.dir, name+".pid"),
		"-P", "0", "--log", "stdout")
	cmd.Dir = f.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: f.uid, Gid: f.gid, Groups: []uint32{f.gid, f.vty}},
		AmbientCaps: capabilities,
	}
	p, err := f.host.Start(cmd)
	if err != nil {
		return nil, err
	}
	f.past = append(f.past, p)
	if err := awaitSocket(ctx, p, filepath.Join(f.dir, name+".vty")); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	// It answers only after it has read its configuration.
	if _, err := f.vtysh(ctx, "-d", name, "-c", "show version"); err != nil {
		return nil, err
	}
	if out := p.Output(); strings.Contains(out, badLine) {
		return nil, fmt.Errorf("%s does not understand its configuration: %s", name, strings.TrimSpace(out))
	}
	return p, nil
}

// badLine is FRR's name for errors in lines of the configuration
// (LIB_ERR_VTY).
const badLine = "EC 100663304]"

// StartBGP starts bgpd after KillBGP or StopBGP.
func (f *FRR) StartBGP(ctx context.Context) (err error) {
	if f.bgpd != nil {
		return errors.New("start bgpd: it is running")
	}
	f.bgpd, err = f.daemon(ctx, bgpdPath)
	return err
}

// KillBGP ends bgpd with SIGKILL. Zebra stays, and with it the routes in the
// kernel if the configuration says bgp graceful-restart preserve-fw-state. The
// kernel closes the sessions' sockets, so peers see that it has ended.
func (f *FRR) KillBGP() error {
	p := f.bgpd
	if p == nil {
		return errors.New("kill bgpd: it is not running")
	}
	f.bgpd = nil
	if err := p.Signal(unix.SIGKILL); err != nil {
		return err
	}
	_ = p.Wait() // says that it was killed
	return nil
}

// StopBGP ends bgpd in good order: it tells its peers.
func (f *FRR) StopBGP() error {
	p := f.bgpd
	if p == nil {
		return nil
	}
	f.bgpd = nil
	return p.Stop(stopGrace)
}

// Stop ends both daemons and removes their files. It may be called twice.
func (f *FRR) Stop() error {
	var errs []error
	errs = append(errs, f.StopBGP())
	if f.zebra != nil {
		errs = append(errs, f.zebra.Stop(stopGrace))
		f.zebra = nil
	}
	if f.dir != "" {
		errs = append(errs, os.RemoveAll(f.dir))
	}
	return errors.Join(errs...)
}

// Query has vtysh execute commands, one after the other in one session, and
// returns what it prints.
func (f *FRR) Query(ctx context.Context, commands ...string) (string, error) {
	var args []string
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	return f.vtysh(ctx, args...)
}

func (f *FRR) vtysh(ctx context.Context, args ...string) (string, error) {
	var out, complaints bytes.Buffer
	cmd := exec.CommandContext(ctx, vtyshPath, append([]string{"--vty_socket", f.dir, "--config_dir", f.dir}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &complaints
	p, err := f.host.Start(cmd)
	if err == nil {
		err = p.Wait()
	}
	if err == nil && strings.HasPrefix(strings.TrimSpace(out.String()), "% ") {
		err = errors.New("refused")
	}
	if err != nil {
		return "", fmt.Errorf("vtysh on %s: %q: %w: %s%s", f.host.Name(), args, err, out.String(), complaints.String())
	}
	return out.String(), nil
}

// Shell returns the command line that opens a shell of this FRR, for a person.
func (f *FRR) Shell() string {
	return fmt.Sprintf("%s --vty_socket %s --config_dir %s", vtyshPath, f.dir, f.dir)
}

// JSON executes one command that prints JSON, and decodes that into v.
func (f *FRR) JSON(ctx context.Context, command string, v any) error {
	text, err := f.Query(ctx, command)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(text), v); err != nil {
		return fmt.Errorf("vtysh on %s: %q: %w", f.host.Name(), command, err)
	}
	return nil
}

// Configure has vtysh execute commands in configuration mode. They last until
// bgpd ends.
func (f *FRR) Configure(ctx context.Context, commands ...string) error {
	_, err := f.Query(ctx, append([]string{"configure terminal"}, commands...)...)
	return err
}

// Peer is what FRR says of a BGP neighbour.
type Peer struct {
	State       string `json:"bgpState"` // Established, or why not
	RemoteAS    uint32 `json:"remoteAs"`
	LastReset   string `json:"lastResetDueTo"`
	LastNotify  string `json:"lastNotificationReason"`
	Established int    `json:"connectionsEstablished"` // sessions so far
}

// Peer returns what FRR says of the neighbour with that address.
func (f *FRR) Peer(ctx context.Context, address string) (Peer, error) {
	var all map[string]Peer
	if err := f.JSON(ctx, "show bgp neighbors "+address+" json", &all); err != nil {
		return Peer{}, err
	}
	p, ok := all[address]
	if !ok {
		return Peer{}, fmt.Errorf("frr on %s: no neighbour %s", f.host.Name(), address)
	}
	return p, nil
}

// Path is one way to a prefix as FRR's BGP has it.
type Path struct {
	From        string   // the neighbour's address
	NextHops    []string // an IPv6 one may have a link-local address beside the global one
	ASPath      string
	Communities []string // well-known ones by FRR's name, as graceful-shutdown
	Large       []string // large communities
	MED         *uint32
	LocalPref   *uint32
	Stale       bool // kept for a neighbour that restarts gracefully
	Multipath   bool
	Best        bool
}

// Paths returns all paths of a prefix; none if there is no such route.
func (f *FRR) Paths(ctx context.Context, prefix string) ([]Path, error) {
	var answer struct {
		Paths []struct {
			ASPath    struct{ String string }
			Metric    *uint32
			LocalPref *uint32 `json:"locPrf"`
			Stale     bool
			Multipath bool
			Bestpath  struct{ Overall bool }
			Community struct{ List []string }
			Large     struct{ List []string } `json:"largeCommunity"`
			Nexthops  []struct{ IP string }
			Peer      struct{ PeerID string }
		}
	}
	command := "show bgp ipv4 unicast " + prefix + " json"
	if strings.Contains(prefix, ":") {
		command = "show bgp ipv6 unicast " + prefix + " json"
	}
	if err := f.JSON(ctx, command, &answer); err != nil {
		return nil, err
	}
	var paths []Path
	for _, p := range answer.Paths {
		path := Path{
			From: p.Peer.PeerID, ASPath: p.ASPath.String, Communities: p.Community.List, Large: p.Large.List,
			MED: p.Metric, LocalPref: p.LocalPref, Stale: p.Stale, Multipath: p.Multipath, Best: p.Bestpath.Overall,
		}
		for _, n := range p.Nexthops {
			path.NextHops = append(path.NextHops, n.IP)
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// Log returns what the daemons have logged so far, those that have ended too.
func (f *FRR) Log() string {
	var b strings.Builder
	for _, p := range f.past {
		b.WriteString(p.Output())
	}
	return b.String()
}
