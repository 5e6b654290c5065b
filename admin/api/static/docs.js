// Starts Swagger UI on the page. A file of its own, because the page's policy allows no inline script.
window.SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  persistAuthorization: false,
  // No request to swagger.io for a badge.
  validatorUrl: null,
  presets: [window.SwaggerUIBundle.presets.apis],
});
