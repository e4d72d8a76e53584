// A provider made of ORY fosite, the OAuth library inside Cells, with Cells' endpoints below /oidc.
//
// The protocol is fosite's: codes, PKCE, rotation, detection of reuse, every error in its own words.
// Ours are the login page, the web session and, where the configuration asks for it, the second
// authorization request by which Cells issues its code and loses the client's PKCE challenge and nonce.
//
// The configuration is one line of JSON on stdin; the end of stdin is the end of the provider. It writes
// {"site": ...} to stdout when it listens, and lists at SITE/requests what came to its token endpoints.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v3"
	"github.com/ory/fosite"
	"github.com/ory/fosite/compose"
	"github.com/ory/fosite/handler/oauth2"
	"github.com/ory/fosite/handler/openid"
	"github.com/ory/fosite/storage"
	"github.com/ory/fosite/token/jwt"
	"golang.org/x/crypto/bcrypt"
)

const keyID = "provider-key"

type configuration struct {
	User               user     `json:"user"`
	Clients            []client `json:"clients"`
	PKCE               string   `json:"pkce"`         // required, optional, unbound or foreign
	AccessToken        string   `json:"access_token"` // opaque or jwt
	AccessTokenSeconds int      `json:"access_token_seconds"`
}

type user struct {
	Login    string `json:"login"`
	Password string `json:"password"`
	Email    string `json:"email"`
	Subject  string `json:"sub"`
}

type client struct {
	ID           string   `json:"client_id"`
	Secret       string   `json:"client_secret"` // empty for a public client
	RedirectURIs []string `json:"redirect_uris"`
}

type provider struct {
	configuration
	site   string
	key    *rsa.PrivateKey
	oauth2 fosite.OAuth2Provider

	lock    sync.Mutex
	records []map[string]any
}

func main() {
	stdin := bufio.NewReader(os.Stdin)
	var config configuration
	if line, err := stdin.ReadBytes('\n'); err != nil {
		log.Fatal(err)
	} else if err := json.Unmarshal(line, &config); err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	p, err := newProvider(config, fmt.Sprintf("http://localhost:%d", port))
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(http.Serve(listener, p.handler())) }()
	fmt.Printf("{\"site\": %q}\n", p.site)
	_, _ = io.Copy(io.Discard, stdin)
}

func newProvider(config configuration, site string) (*provider, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	store := storage.NewMemoryStore()
	for _, registered := range config.Clients {
		if store.Clients[registered.ID], err = registered.register(); err != nil {
			return nil, err
		}
	}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return nil, err
	}
	settings := &fosite.Config{
		AccessTokenLifespan: time.Duration(config.AccessTokenSeconds) * time.Second,
		IDTokenIssuer:       site + "/oidc/",
		AccessTokenIssuer:   site + "/oidc/",
		EnforcePKCE:         config.PKCE == "required",
		GlobalSecret:        secret,
	}
	p := &provider{configuration: config, site: site, key: key, records: []map[string]any{}}
	p.oauth2 = compose.Compose(
		settings, store, p.strategy(settings),
		compose.OAuth2AuthorizeExplicitFactory,
		compose.OAuth2RefreshTokenGrantFactory,
		compose.OpenIDConnectExplicitFactory,
		compose.OpenIDConnectRefreshFactory,
		compose.OAuth2TokenIntrospectionFactory,
		compose.OAuth2TokenRevocationFactory,
		compose.OAuth2PKCEFactory,
	)
	return p, nil
}

func (p *provider) strategy(settings *fosite.Config) any {
	signingKey := func(context.Context) (any, error) { return p.key, nil }
	core := oauth2.CoreStrategy(compose.NewOAuth2HMACStrategy(settings))
	if p.AccessToken == "jwt" {
		core = compose.NewOAuth2JWTStrategy(signingKey, core, settings)
	}
	return &compose.CommonStrategy{
		CoreStrategy:               core,
		OpenIDConnectTokenStrategy: compose.NewOpenIDConnectStrategy(signingKey, settings),
		Signer:                     &jwt.DefaultSigner{GetPrivateKey: signingKey},
	}
}

func (c client) register() (fosite.Client, error) {
	registered := &fosite.DefaultClient{
		ID:            c.ID,
		Public:        c.Secret == "",
		RedirectURIs:  c.RedirectURIs,
		GrantTypes:    []string{"authorization_code", "refresh_token"},
		ResponseTypes: []string{"code"},
		Scopes:        []string{"openid", "email", "profile", "pydio", "offline", "offline_access"},
	}
	if registered.Public {
		return registered, nil
	}
	hashed, err := bcrypt.GenerateFromPassword([]byte(c.Secret), bcrypt.MinCost)
	registered.Secret = hashed
	return registered, err
}

func (p *provider) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /oidc/.well-known/openid-configuration", p.discovery)
	mux.HandleFunc("GET /oidc/.well-known/jwks.json", p.keys)
	mux.HandleFunc("GET /oidc/oauth2/auth", p.authorize)
	mux.HandleFunc("POST /oidc/oauth2/auth", p.login)
	mux.HandleFunc("POST /oidc/oauth2/token", p.recorded(p.token))
	mux.HandleFunc("POST /oidc/oauth2/revoke", p.recorded(p.revoke))
	mux.HandleFunc("GET /oidc/oauth2/userinfo", p.userinfo)
	mux.HandleFunc("GET /requests", p.requests)
	return mux
}

func (p *provider) discovery(w http.ResponseWriter, _ *http.Request) {
	issuer := p.site + "/oidc/"
	writeJSON(w, map[string]any{
		"issuer":                                issuer,
		"authorization_endpoint":                issuer + "oauth2/auth",
		"token_endpoint":                        issuer + "oauth2/token",
		"revocation_endpoint":                   issuer + "oauth2/revoke",
		"userinfo_endpoint":                     issuer + "oauth2/userinfo",
		"jwks_uri":                              issuer + ".well-known/jwks.json",
		"response_types_supported":              []string{"code"},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
		"code_challenge_methods_supported":      []string{"plain", "S256"},
		"token_endpoint_auth_methods_supported": []string{"client_secret_post", "client_secret_basic", "none"},
	})
}

func (p *provider) keys(w http.ResponseWriter, _ *http.Request) {
	key := jose.JSONWebKey{Key: p.key.Public(), KeyID: keyID, Algorithm: "RS256", Use: "sig"}
	writeJSON(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{key}})
}

const loginPage = `<!doctype html><html lang="en"><meta charset="utf-8"><title>fosite</title>
<form method="post">%s<label>Login <input name="username" autofocus></label>
<label>Password <input name="password" type="password"></label><button>Log in</button></form></html>`

// login takes the form and keeps the answer in a cookie: the web session.
func (p *provider) login(w http.ResponseWriter, r *http.Request) {
	if r.PostFormValue("username") != p.User.Login || r.PostFormValue("password") != p.User.Password {
		fmt.Fprintf(w, loginPage, "<p>Wrong login or password</p>")
		return
	}
	http.SetCookie(w, &http.Cookie{Name: "web_session", Value: p.User.Subject, HttpOnly: true})
	http.Redirect(w, r, r.URL.String(), http.StatusSeeOther)
}

func (p *provider) authorize(w http.ResponseWriter, r *http.Request) {
	request, err := p.oauth2.NewAuthorizeRequest(r.Context(), r)
	if err != nil {
		p.oauth2.WriteAuthorizeError(r.Context(), w, request, err)
		return
	}
	if cookie, err := r.Cookie("web_session"); err != nil || cookie.Value != p.User.Subject {
		fmt.Fprintf(w, loginPage, "")
		return
	}
	asCells := slices.Contains([]string{"unbound", "foreign"}, p.PKCE)
	if asCells {
		if request, err = p.secondRequest(r); err != nil {
			p.oauth2.WriteAuthorizeError(r.Context(), w, request, err)
			return
		}
	}
	for _, scope := range request.GetRequestedScopes() {
		request.GrantScope(scope)
	}
	response, err := p.oauth2.NewAuthorizeResponse(r.Context(), request, p.newSession())
	switch {
	case err != nil:
		p.oauth2.WriteAuthorizeError(r.Context(), w, request, err)
	case asCells:
		// As text, and nothing percent-encoded: so does the Cells web page.
		w.Header().Set("Location", fmt.Sprintf("%s?code=%s&state=%s",
			request.GetRedirectURI(), response.GetCode(), request.GetState()))
		w.WriteHeader(http.StatusFound)
	default:
		p.oauth2.WriteAuthorizeResponse(r.Context(), w, request, response)
	}
}

// secondRequest is the authorization request that the Cells login page makes on its own.
func (p *provider) secondRequest(r *http.Request) (fosite.AuthorizeRequester, error) {
	query := r.URL.Query()
	challenged := query.Has("code_challenge")
	for _, lost := range []string{"nonce", "code_challenge", "code_challenge_method"} {
		query.Del(lost)
	}
	if challenged && p.PKCE == "foreign" { // Cells' own clients send none, and get through
		query.Set("code_challenge", strings.Repeat("x", 43))
		query.Set("code_challenge_method", "S256")
	}
	second, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "/?"+query.Encode(), nil)
	if err != nil {
		return fosite.NewAuthorizeRequest(), err
	}
	return p.oauth2.NewAuthorizeRequest(r.Context(), second)
}

func (p *provider) token(w http.ResponseWriter, r *http.Request) {
	request, err := p.oauth2.NewAccessRequest(r.Context(), r, p.newSession())
	if err != nil {
		p.oauth2.WriteAccessError(r.Context(), w, request, err)
		return
	}
	response, err := p.oauth2.NewAccessResponse(r.Context(), request)
	if err != nil {
		p.oauth2.WriteAccessError(r.Context(), w, request, err)
		return
	}
	p.oauth2.WriteAccessResponse(r.Context(), w, request, response)
}

func (p *provider) revoke(w http.ResponseWriter, r *http.Request) {
	p.oauth2.WriteRevocationResponse(r.Context(), w, p.oauth2.NewRevocationRequest(r.Context(), r))
}

func (p *provider) userinfo(w http.ResponseWriter, r *http.Request) {
	token := fosite.AccessTokenFromRequest(r)
	if _, _, err := p.oauth2.IntrospectToken(r.Context(), token, fosite.AccessToken, p.newSession()); err != nil {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	writeJSON(w, map[string]any{"sub": p.User.Subject, "name": p.User.Login, "email": p.User.Email})
}

// session serves the ID token and, where access tokens are JWTs, those.
type session struct {
	*openid.DefaultSession
}

func (p *provider) newSession() *session {
	s := &session{openid.NewDefaultSession()}
	s.Subject = p.User.Subject
	s.Claims.Subject = p.User.Subject
	s.Claims.Extra = map[string]any{"name": p.User.Login, "email": p.User.Email}
	s.Headers.Extra = map[string]any{"kid": keyID}
	return s
}

func (s *session) Clone() fosite.Session {
	return &session{s.DefaultSession.Clone().(*openid.DefaultSession)}
}

func (s *session) GetJWTClaims() jwt.JWTClaimsContainer {
	return &jwt.JWTClaims{Subject: s.Subject, ExpiresAt: s.GetExpiresAt(fosite.AccessToken)}
}

func (s *session) GetJWTHeader() *jwt.Headers { return s.Headers }

// recorded notes what came to a token endpoint and how it ended, without any secret, before it answers.
func (p *provider) recorded(handle http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		answer := httptest.NewRecorder()
		handle(answer, r)
		record := map[string]any{
			"endpoint":       r.URL.Path,
			"grant_type":     r.PostFormValue("grant_type"),
			"code_verifier":  r.PostFormValue("code_verifier") != "",
			"authentication": authentication(r),
			"status":         answer.Code,
		}
		if answer.Code >= http.StatusBadRequest {
			record["answer"] = answer.Body.String()
		}
		p.lock.Lock()
		p.records = append(p.records, record)
		p.lock.Unlock()
		maps.Copy(w.Header(), answer.Header())
		w.WriteHeader(answer.Code)
		_, _ = answer.Body.WriteTo(w)
	}
}

func (p *provider) requests(w http.ResponseWriter, _ *http.Request) {
	p.lock.Lock()
	defer p.lock.Unlock()
	writeJSON(w, p.records)
}

func authentication(r *http.Request) string {
	if _, _, ok := r.BasicAuth(); ok {
		return "client_secret_basic"
	}
	if r.PostFormValue("client_secret") != "" {
		return "client_secret_post"
	}
	return "none"
}

func writeJSON(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value)
}
